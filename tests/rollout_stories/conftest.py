"""Every record is read thousands of times here: reading is pure, so its result is kept."""

from functools import cache
from pathlib import Path

import pytest

import policy.ledger
from policy.records import decode
from tests.places.memory import MemoryCloud
from tests.rollout_stories.mortal import Mortal
from tests.rollout_stories.process import must_have_ended_well, repeating_changes_nothing, tell
from tests.rollout_stories.stories import STORIES, Story


@pytest.fixture(autouse=True, scope="session")
def remember_records():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy.ledger, "decode", cache(decode))
        yield


@pytest.fixture(params=STORIES, ids=lambda story: story.name)
def story(request) -> Story:
    return request.param


@pytest.fixture
def mortal(story, tmp_path) -> Mortal:
    """Processes that tell the story."""

    def process(cloud: MemoryCloud, scratch: Path) -> None:
        tell(cloud.place(scratch), story.steps)

    def check(cloud: MemoryCloud, scratch: Path) -> None:
        must_have_ended_well(story, cloud, scratch)
        repeating_changes_nothing(story, cloud, scratch)

    return Mortal(tmp_path, process, check)
