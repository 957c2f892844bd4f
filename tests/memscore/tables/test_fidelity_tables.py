"""Tables of fidelity: classes have their names."""

import io

import pytest
from rich.console import Console

from memscore.analysis.risk_signals import ClassTail, RiskSignals
from memscore.statistics.intervals import Interval
from memscore.tables.fidelity_tables import print_loss_groups


@pytest.mark.parametrize(("names", "shown"), [(("tabby", "[red] fox"), ("tabby", "[red] fox")), ((), ("0", "1"))])
def test_classes_are_named_where_they_have_names(names, shown):
    tails = [ClassTail(label=k, tail=0.5, least=0.1, risky=0.2, twin=0.8, risky_in_tail=0.9) for k in (0, 1)]
    signals = RiskSignals(
        risk="lira_k0.500", groups=[], spearman=Interval(value=0.5, lo=0.4, hi=0.6), tails=tails, trends=[]
    )
    text = io.StringIO()
    print_loss_groups(Console(file=text, width=100), signals, names)
    rows = [line.strip() for line in text.getvalue().splitlines() if "0.1000 to 0.5000" in line]
    assert [row.partition("  ")[0] for row in rows] == list(shown)
