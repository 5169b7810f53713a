"""How servers that speak OpenAI's API say no, each in its own words, and how their models write an answer.

The words are those of their public documentation and of public reports of what they answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fake_openai.answers import RequestRejectedError

Body = dict[str, Any]
Said = tuple[int, Any]
OPENAI_CAP, OLD_CAP = "max_completion_tokens", "max_tokens"


@dataclass(frozen=True, slots=True)
class Voice:
    """A kind of server. `unknown` are the parameters it refuses; `say` gives status and body for those of a request.

    It knows these `forms` of an answer, and says `say_form` of another; without it, it takes no notice of the form.
    `written` is what its model makes of the JSON.
    """

    unknown: tuple[str, ...]
    say: Callable[[Sequence[str]], Said]
    forms: tuple[str, ...] = ("json_schema", "json_object")
    say_form: Callable[[str], Said] | None = None
    written: str = "{}"

    def check(self, body: Body) -> None:
        """Raises RequestRejectedError as this server would."""
        unknown = [name for name in self.unknown if name in body]
        if unknown:
            raise said(*self.say(unknown))
        form = str(body.get("response_format", {}).get("type", "text"))
        if form not in (*self.forms, "text") and self.say_form is not None:
            raise said(*self.say_form(form))

    def reads_schema(self, body: Body) -> bool:
        """Whether its answer follows the schema in `response_format`."""
        return body.get("response_format", {}).get("type") == "json_schema" and "json_schema" in self.forms


def said(status: int, content: Any) -> RequestRejectedError:
    """What a server says instead of an answer."""
    error = RequestRejectedError("said a voice", status=status)
    error.content = content
    return error


def _error(message: str, **more: Any) -> Said:
    return 400, {"error": {"message": message, "type": "invalid_request_error", **more}}


def _details(names: Sequence[str]) -> list[Body]:
    return [
        {
            "type": "extra_forbidden",
            "loc": ["body", name],
            "msg": "Extra inputs are not permitted",
            "input": name,
        }
        for name in names
    ]


def _places(names: Sequence[str]) -> str:
    return str([{**one, "loc": tuple(one["loc"])} for one in _details(names)])


def _gemini(names: Sequence[str]) -> Said:
    lines = [f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.' for name in names]
    violations = [{"description": line} for line in lines]
    details = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}]
    message = "\n".join(lines)
    # A list, as it really comes.
    return 400, [
        {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}}
    ]


def _groq(names: Sequence[str]) -> Said:
    if "store" in names:
        return _error("property 'store' is unsupported, did you mean 'stop'?")
    return _error("`reasoning_effort` must be one of `low`, `medium`, or `high`")


def _openai_form(form: str) -> Said:
    return _error(
        f"Invalid parameter: 'response_format' of type '{form}' is not supported with this model.",
        param=None,
        code=None,
    )


VOICES = {
    "openai": Voice(
        ("reasoning_effort",),
        lambda names: _error(
            "Unsupported value: 'reasoning_effort' does not support 'none' with this model.",
            param="reasoning_effort",
            code="unsupported_value",
        ),
    ),
    "openai, an old model": Voice(
        ("reasoning_effort",),
        lambda names: _error(
            "Unrecognized request argument supplied: reasoning_effort", param=None, code=None
        ),
        forms=(),
        say_form=_openai_form,
    ),
    "mistral": Voice(
        ("store", OPENAI_CAP, "reasoning_effort"), lambda names: (422, {"detail": _details(names)})
    ),
    "mistral, details in the message": Voice(
        ("store", OPENAI_CAP, "reasoning_effort"),
        lambda names: (
            422,
            {
                "object": "error",
                "message": {"detail": _details(names)},
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            },
        ),
    ),
    "groq": Voice(
        ("store", "reasoning_effort"),
        _groq,
        forms=("json_object",),
        say_form=lambda form: _error(
            f"This model does not support response format `{form}`. See supported models at "
            "https://console.groq.com/docs/structured-outputs#supported-models"
        ),
    ),
    "gemini": Voice(("store",), _gemini),
    "deepseek": Voice(
        ("reasoning_effort",),
        lambda names: _error(
            "Failed to deserialize the JSON body into the target type: reasoning_effort: unknown variant `none`, "
            "expected one of `high`, `low`, `medium`, `max`, `xhigh` at line 1 column 68",
            param=None,
            code="invalid_request_error",
        ),
        forms=("json_object",),
        say_form=lambda form: _error(
            "This response_format type is unavailable now", param=None, code="invalid_request_error"
        ),
    ),
    "ollama": Voice(
        ("reasoning_effort",),
        # The parameter has another name in it.
        lambda names: _error(
            'invalid reasoning value: \'none\' (must be "high", "medium", or "low")', param=None, code=None
        ),
        written="<think>\nThe user wants {{}} of me.\n</think>\n\n{}",
    ),
    "vllm": Voice(
        ("store", OPENAI_CAP, "reasoning_effort"),
        lambda names: (
            400,
            {
                "object": "error",
                "message": _places(names),
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
        ),
    ),
    "cerebras": Voice(
        ("reasoning_effort",),
        lambda names: (
            400,
            {
                "message": "1 validation error for ChatCompletionServerRequest\nreasoning_effort\n  Input should be "
                "'low', 'medium' or 'high' [type=enum, input_value='none', input_type=str]",
                "type": "invalid_request_error",
                "param": "validation_error",
                "code": "wrong_api_format",
            },
        ),
    ),
    "xai": Voice(
        ("reasoning_effort",),
        lambda names: (
            400,
            {"code": "invalid-argument", "error": "Model grok-4 does not support parameter reasoningEffort."},
        ),
    ),
    "one that names nothing": Voice(("store",), lambda names: (400, {"error": "Bad Request"})),
    "one that fences": Voice((), lambda names: (400, None), written="```json\n{}\n```"),
    "one that takes no notice of the form": Voice(
        (), lambda names: (400, None), forms=(), written="```json\n{}\n```"
    ),
}
