"""Settings are checked against the limits declared with them, and become options of commands."""

import math
import pickle
from dataclasses import dataclass

import pytest
import typer

from mmcoop.cli.options import options_of
from mmcoop.errors import DataError, Interrupted, UsageError, setting
from mmcoop.settings import check_settings, option, required


@dataclass(frozen=True)
class Kettle:
    water: float = required("Litres of water")
    power: int = option(2000, "Watts", min=1, flag="--watts")
    lid: str = option("shut", "Lid", choices=("shut", "open"))
    minutes: float | None = option(None, "Longest time", above=0)

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"water": math.nan}, "water is nan"),
        ({"water": math.inf}, "water is inf"),
        ({"water": 1.0, "power": 0}, "power is 0: .* at least 1"),
        ({"water": 1.0, "lid": "ajar"}, "lid 'ajar': .* shut, open"),
        ({"water": 1.0, "minutes": 0.0}, "minutes is 0.0: .* above 0"),
    ],
)
def test_a_value_outside_its_limits_is_refused_by_its_name(given, named):
    with pytest.raises(UsageError, match=named):
        Kettle(**given)


def test_limits_themselves_and_unset_values_pass():
    Kettle(water=0.0, power=1)
    Kettle(water=1.0, minutes=0.001)


def test_settings_become_options_of_a_command():
    app = typer.Typer()
    found = []

    @dataclass(kw_only=True)
    class Boil(options_of(Kettle)):
        loud: bool = False

        def __post_init__(self):
            found.append((self.water, self.power, self.lid, self.minutes))

    app.command()(Boil)
    command = typer.main.get_command(app)
    command.main(["--water", "2", "--watts", "5"], standalone_mode=False)
    assert found == [(2.0, 5, "shut", None)]
    by_name = {parameter.name: parameter for parameter in command.params}
    assert by_name["water"].required
    assert by_name["power"].opts == ["--watts"]
    assert by_name["lid"].help == "Lid."


def test_options_whose_default_depends_on_the_dataset_are_unset():
    unset = options_of(Kettle, ["lid", "power"], unset=True)()
    assert (unset.lid, unset.power) == (None, None)


@pytest.mark.parametrize("kind", [UsageError, DataError, Interrupted])
def test_errors_keep_both_spellings_of_a_setting_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind(f"lower {setting('batch_size')}")))
    assert type(error) is kind
    assert str(error) == "lower batch_size"
    assert error.on_command_line() == "lower --batch-size"
