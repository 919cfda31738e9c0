"""Prefect's forms and `--help`: every field and every command has its words."""

import pytest
from prefect.utilities.callables import parameter_schema

from flows import __main__ as terminal
from flows.ablate import ablate
from flows.reconcile import reconcile
from flows.retrain import retrain
from flows.rollback import rollback
from flows.rollout import rollout


@pytest.mark.parametrize(
    "flow", [retrain, rollout, rollback, ablate, reconcile], ids=lambda flow: flow.name
)
def test_every_field_of_the_form_is_described(flow):
    fields = parameter_schema(flow.fn).properties
    assert fields
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_the_help_says_what_each_command_does_in_more_words_than_its_name():
    for name, text in {**terminal.QUESTIONS, **terminal.REQUESTS}.items():
        assert len(text.removeprefix(name).split()) > 3, name
