"""A fake OpenAI server: a real socket, real HTTP, scripted faults. Its answers come from simple word rules."""

from tests.fake_openai.faults import Fault
from tests.fake_openai.files import BatchPlan
from tests.fake_openai.rules import rule_label
from tests.fake_openai.server import Call, FakeOpenAI
from tests.fake_openai.voices import VOICES, Voice

__all__ = ["VOICES", "BatchPlan", "Call", "FakeOpenAI", "Fault", "Voice", "rule_label"]
