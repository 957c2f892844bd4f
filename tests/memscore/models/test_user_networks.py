"""How a class or function of the user's is called, and what is said where it does not fit."""

import pytest
from torch import nn

from memscore.models.architectures import build_network
from memscore.models.user_networks import choose_arguments

SHAPE = (1, 8, 8)


class Net(nn.Sequential):
    """Ten classes unless told otherwise, as users write it."""

    def __init__(self, num_classes=10):
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))


class Fixed(Net):
    def __init__(self):
        super().__init__(10)


ready = Fixed()


@pytest.mark.parametrize(
    ("builder", "expected"),
    [
        (lambda shape, n_classes: 0, ([], {"shape": SHAPE, "n_classes": 3})),
        (lambda x, k: 0, ([SHAPE, 3], {})),
        (lambda x, n_classes: 0, ([SHAPE, 3], {})),
        (lambda x, k, width=2: 0, ([SHAPE, 3], {})),
        (lambda k: 0, ([3], {})),
        (lambda input_shape: 0, ([], {"input_shape": SHAPE})),
        (lambda num_classes=10, width=4: 0, ([], {"num_classes": 3})),
        (lambda width=4, *, n_classes: 0, ([], {"n_classes": 3})),
        (lambda weights=None, **options: 0, ([], {"num_classes": 3})),
        (lambda *sizes: 0, ([SHAPE, 3], {})),
        (lambda width=4: 0, ([], {})),
        (Net, ([], {"num_classes": 3})),
        (Fixed, ([], {})),
    ],
)
def test_a_class_or_function_is_called_by_its_signature(builder, expected):
    assert choose_arguments(builder, SHAPE, 3) == expected


@pytest.mark.parametrize("builder", [lambda n_classes, width: 0, lambda x, k, width: 0])
def test_a_parameter_that_nothing_is_known_for_is_named(builder):
    with pytest.raises(ValueError, match=r"nothing is known to give for .*'width'; give these a default"):
        choose_arguments(builder, SHAPE, 3)


@pytest.mark.parametrize("name", ["Net", "Fixed"])
def test_classes_are_networks_too(name):
    assert type(build_network(f"{__name__}:{name}", SHAPE, 10, seed=0)).__name__ == name


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (f"{__name__}:Fixed", r"got \[2, 10\]; Fixed\(\) does not give one logit for each class, let it take num_cl"),
        (f"{__name__}:ready", r"is a network that exists already.* such as .*:Fixed"),
        ("torchvision.models:VisionTransformer", "nothing is known to give for 'image_size' and 'patch_size'"),
    ],
)
def test_what_gives_no_network_for_these_classes_is_refused(arch, message):
    with pytest.raises(ValueError, match=message):
        build_network(arch, SHAPE, 3, seed=0)


def test_a_module_that_fails_while_it_is_imported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_net.py").write_text("def network(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"broken_net:network fails in line 1 of broken_net\.py: SyntaxError: "):
        build_network("broken_net:network", SHAPE, 3, seed=0)


def fails_inside(num_classes):
    widths = [8, num_classes]
    return nn.Linear(widths[2], 1)


def takes_a_name(shape, classes, /, *, name):
    return Net(classes)


class Nested:
    class Inner(Net):
        pass


def test_a_function_that_fails_is_named_with_the_line_and_not_told_to_take_nothing():
    line = fails_inside.__code__.co_firstlineno + 2
    with pytest.raises(ValueError, match="list index") as caught:
        build_network(f"{__name__}:fails_inside", SHAPE, 3, seed=0)
    assert f"fails in line {line} of test_user_networks.py: IndexError: " in str(caught.value)
    assert str(caught.value).endswith("(called as fails_inside(num_classes=3))")
    assert "nothing" not in str(caught.value)


def test_a_call_that_does_not_fit_says_what_is_given():
    with pytest.raises(
        ValueError, match=r"cannot be called as takes_a_name\(.*'name'; it gets the shape as input_shape"
    ):
        build_network(f"{__name__}:takes_a_name", SHAPE, 3, seed=0)


def test_a_class_in_a_class_is_found():
    assert isinstance(build_network(f"{__name__}:Nested.Inner", SHAPE, 3, seed=0), Nested.Inner)


def test_torchvisions_networks_are_named_as_torchvision_has_them():
    model = build_network("torchvision.models:resnet18", (3, 16, 16), 5, seed=0)
    assert model.fc.out_features == 5
