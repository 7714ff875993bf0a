"""The words and prices that made-up traffic is made of: models, tools, capabilities, names.

Live traffic reads them here, the bulk backlog gets the same ones as a JSON document, so that both look alike.
"""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """A language model. Prices are US dollars per million tokens, `token_ms` is milliseconds per output token."""

    name: str
    provider: str
    weight: int
    input_price: float
    output_price: float
    token_ms: float
    writes_cache: bool
    """Whether the provider bills the writing of its prompt cache, and so reports cache creation tokens."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that agents call. `capability` is a reference as in `CAPABILITIES`, or None for a tool of the client."""

    name: str
    display_name: str
    capability: str | None
    weight: int
    median_ms: float
    """Half of the successful calls take less; the rest have a long tail."""
    error_percent: float
    timeout_percent: float


@dataclass(frozen=True, slots=True)
class Capability:
    """What an agent, a harness or a session may be configured with.

    `mcp:<name>` and `skill:<name>` refer to a row of the org by its name; in sources they stand with that row's id.
    """

    reference: str
    name: str


MODELS = (
    Model("claude-sonnet-4-5", "anthropic", 8, 3.0, 15.0, 14.0, writes_cache=True),
    Model("claude-haiku-4-5", "anthropic", 5, 1.0, 5.0, 7.0, writes_cache=True),
    Model("claude-opus-4-1", "anthropic", 1, 15.0, 75.0, 22.0, writes_cache=True),
    Model("gpt-5", "openai", 5, 1.25, 10.0, 16.0, writes_cache=False),
    Model("gpt-5-mini", "openai", 4, 0.25, 2.0, 9.0, writes_cache=False),
    Model("gemini-2.5-pro", "google", 2, 1.25, 10.0, 13.0, writes_cache=False),
    Model("gemini-2.5-flash", "google", 3, 0.3, 2.5, 5.0, writes_cache=False),
)

BACKGROUND_MODEL = MODELS[4]
"""Titles and summaries, the platform's own inference, go to a cheap model."""

CAPABILITIES = (
    Capability("web_search", "Web search"),
    Capability("code_interpreter", "Code interpreter"),
    Capability("session_file_system", "File system"),
    Capability("memory", "Memory"),
    Capability("current_time", "Current time"),
    Capability("pii_guardrail", "Personal data guardrail"),
    Capability("toxicity_guardrail", "Toxicity guardrail"),
    Capability("mcp:GitHub", "GitHub"),
    Capability("mcp:Linear", "Linear"),
    Capability("mcp:Slack", "Slack"),
    Capability("skill:PDF forms", "PDF forms"),
    Capability("skill:Spreadsheet analysis", "Spreadsheet analysis"),
    Capability("skill:Release notes", "Release notes"),
    Capability("declarative:refund_policy", "Refund policy"),
    Capability("declarative:tone_of_voice", "Tone of voice"),
    Capability("declarative:on_call_rota", "On-call rota"),
)

CAPABILITY_NAMES = {capability.reference: capability.name for capability in CAPABILITIES}

GUARDRAILS = ("pii_guardrail", "toxicity_guardrail")

TOOLS = (
    Tool("web_search", "Search the web", "web_search", 6, 900, 3, 2),
    Tool("web_fetch", "Fetch a page", "web_search", 5, 1400, 7, 4),
    Tool("run_python", "Run Python", "code_interpreter", 5, 2600, 9, 3),
    Tool("read_file", "Read a file", "session_file_system", 8, 12, 2, 0),
    Tool("write_file", "Write a file", "session_file_system", 4, 18, 1, 0),
    Tool("recall", "Recall", "memory", 2, 45, 1, 0),
    Tool("get_current_time", "Current time", "current_time", 1, 1, 0, 0),
    Tool("github_search_issues", "Search issues", "mcp:GitHub", 3, 620, 4, 1),
    Tool("github_create_pull_request", "Open a pull request", "mcp:GitHub", 1, 1800, 8, 1),
    Tool("linear_list_tickets", "List tickets", "mcp:Linear", 2, 480, 3, 1),
    Tool("slack_post_message", "Post a message", "mcp:Slack", 2, 350, 4, 1),
    Tool("fill_pdf_form", "Fill a form", "skill:PDF forms", 1, 3100, 6, 2),
    Tool("pivot_table", "Pivot table", "skill:Spreadsheet analysis", 1, 1500, 5, 1),
    Tool("lookup_order", "Look up an order", None, 4, 160, 3, 1),
    Tool("issue_refund", "Issue a refund", None, 1, 420, 6, 1),
)

ORG_NAMES = ("Northwind Robotics", "Harbor Health", "Lumen Legal", "Tidewater Freight", "Alder Bank", "Mosaic Games")
AGENT_NAMES = ("Support triage", "Research assistant", "Code reviewer", "Invoice clerk", "Onboarding guide")
HARNESS_NAMES = ("Web chat", "Slack bot", "Nightly batch")
BLUEPRINTS = ("support-desk", "research-desk", "release-train")
USER_LINES = (
    "Where is my order?",
    "Summarise the thread.",
    "Please fix the failing build.",
    "What changed since Monday?",
)

TURN_FAILED_PERCENT = 5.0
TURN_CANCELLED_PERCENT = 2.0


def names_with(prefix: str) -> tuple[str, ...]:
    """What follows `prefix` in the references of the capabilities that begin with it."""
    return tuple(c.reference.removeprefix(prefix) for c in CAPABILITIES if c.reference.startswith(prefix))


def vocabulary_json() -> str:
    """The vocabulary as backlog_plan.sql reads it: a JSON object of arrays, the members named as in the classes."""
    return json.dumps(
        {
            "models": [asdict(model) for model in MODELS],
            "tools": [asdict(tool) for tool in TOOLS],
            "capabilities": [asdict(capability) for capability in CAPABILITIES],
            "guardrails": GUARDRAILS,
            "blueprints": BLUEPRINTS,
        }
    )
