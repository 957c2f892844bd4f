"""Passes over a set: complete, each with a new order and new augmentations."""

from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from tests.fixtures.problems import make_tiny_problem
from unlearn.problem import BatchSampler, iterate_in_order


def make_sampler(examples, size=16, seed=0):
    return BatchSampler(examples, size, np.random.default_rng(seed))


def positions(batches_with_positions):
    return torch.cat([index for _, _, index in batches_with_positions]).tolist()


def test_a_pass_serves_every_example_once_in_an_order_of_its_own():
    sampler = make_sampler(make_tiny_problem().retain)
    first, second = positions(sampler.with_positions()), positions(sampler.with_positions())
    assert sorted(first) == sorted(second) == list(range(54))
    assert first != second
    assert positions(make_sampler(make_tiny_problem().retain).with_positions()) == first
    assert positions(make_sampler(make_tiny_problem().retain, seed=1).with_positions()) != first


def test_the_last_batch_is_smaller_and_none_is_dropped():
    sampler = make_sampler(make_tiny_problem().retain)
    assert [len(labels) for _, labels in sampler] == [16, 16, 16, 6]
    assert len(sampler) == 4
    assert [len(labels) for _, labels in make_sampler(make_tiny_problem().forget)] == [10]


def test_labels_and_images_belong_together():
    examples = make_tiny_problem().retain
    for images, labels, index in make_sampler(examples).with_positions():
        assert torch.equal(labels, examples.labels[index])
        assert torch.equal(images, examples.take(index))


def test_going_round_reshuffles():
    labels = [batch_labels for _, batch_labels in islice(make_sampler(make_tiny_problem().forget, 4).cycle(), 6)]
    assert [len(batch_labels) for batch_labels in labels] == [4, 4, 2, 4, 4, 2]
    assert not torch.equal(torch.cat(labels[:3]), torch.cat(labels[3:]))
    assert torch.equal(torch.cat(labels[:3]).sort()[0], torch.cat(labels[3:]).sort()[0])


def test_each_pass_augments_anew():
    examples = make_tiny_problem().forget
    augmented = replace(examples, recipe=replace(examples.recipe, augment=("crop",), crop_padding=2))
    sampler = make_sampler(augmented)
    first, second = (torch.cat([images for images, _ in sampler]) for _ in range(2))
    by_label = [torch.stack([images.sum() for images in each]).sort()[0] for each in (first, second)]
    assert not torch.allclose(by_label[0], by_label[1])


def test_in_order_is_plain_and_in_order():
    examples = make_tiny_problem().retain
    augmented = replace(examples, recipe=replace(examples.recipe, augment=("crop",)))
    pairs = list(iterate_in_order(augmented, 16))
    assert torch.equal(torch.cat([images for images, _ in pairs]), examples.take(torch.arange(54)))
    assert torch.equal(torch.cat([labels for _, labels in pairs]), examples.labels)


def test_two_loaders_of_one_generator_draw_differently():
    rng, examples = np.random.default_rng(0), make_tiny_problem().retain
    orders = [positions(BatchSampler(examples, 16, rng).with_positions()) for _ in range(2)]
    assert orders[0] != orders[1]
