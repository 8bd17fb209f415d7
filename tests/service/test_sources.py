"""An error about a setting says where it was written, and shows no secret."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from session_history import SessionHistoryService
from session_history.config import chain, registry
from session_history.config import settings as config
from session_history.config.settings import Settings
from session_history.config.sources import Sources
from session_history.config.validation import Written, validated
from session_history.errors import ConfigurationError, UnknownScheme, UnknownWrapper
from session_history_hooks import ProviderOptions

SECRET = "hunter2"
IN_OPTIONS = "app.toml, [session-history.options]"
IN_TABLE = "app.toml, [session-history]"
IN_SHARDED = "app.toml, [session-history.wrapper-options.sharded]"

Configure = Callable[..., None]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Configure:
    """Set variables of the environment, and write the file."""
    monkeypatch.chdir(tmp_path)

    def configure(text: str | None = None, **variables: str) -> None:
        if text is not None:
            (tmp_path / "app.toml").write_text(text)
            variables["CONFIG"] = "app.toml"
        for name, value in variables.items():
            monkeypatch.setenv(f"SESSION_HISTORY_{name}", value)

    return configure


def error_of(make: Callable[[], object] = SessionHistoryService.from_config) -> str:
    with pytest.raises(ConfigurationError) as raised:
        make()
    assert SECRET not in "".join(traceback.format_exception(raised.value, chain=True))
    return str(raised.value)


def of_environment(configure: Configure, name: str, value: str) -> str:
    configure(URL="sqlite:///h.db", **{f"OPTION_{name.upper()}": value})
    return error_of()


def of_file(configure: Configure, name: str, value: str) -> str:
    configure(f'[session-history]\nurl = "sqlite:///h.db"\n[session-history.options]\n{name} = "{value}"\n')
    return error_of()


def of_file_and_environment(configure: Configure, name: str, value: str) -> str:
    text = f'[session-history]\nurl = "sqlite:///h.db"\n[session-history.options]\n{name} = "1"\n'
    configure(text, **{f"OPTION_{name.upper()}": value})
    return error_of()


def of_query_in_environment(configure: Configure, name: str, value: str) -> str:
    configure(URL=f"sqlite:///h.db?{name}={value}")
    return error_of()


def of_query_in_file(configure: Configure, name: str, value: str) -> str:
    configure(f'[session-history]\nurl = "sqlite:///h.db?{name}={value}"\n')
    return error_of()


def of_query_of_shard(configure: Configure, name: str, value: str) -> str:
    table = "[session-history]\nwrappers = ['sharded']\n[session-history.wrapper-options.sharded]\n"
    configure(f"{table}shards = ['memory://', 'sqlite:///h.db?{name}={value}']\n")
    return error_of()


def of_query(_: Configure, name: str, value: str) -> str:
    return error_of(lambda: SessionHistoryService.from_url(f"sqlite:///h.db?{name}={value}"))


def of_argument(_: Configure, name: str, value: str) -> str:
    return error_of(lambda: SessionHistoryService.from_url("sqlite:///h.db", **{name: value}))


def of_settings(_: Configure, name: str, value: str) -> str:
    return error_of(lambda: chain.open_chain(Settings(url="sqlite:///h.db", options={name: value})))


PLACES = [
    (of_environment, "SESSION_HISTORY_OPTION_{}"),
    (of_file_and_environment, "SESSION_HISTORY_OPTION_{}"),
    (of_file, IN_OPTIONS),
    (of_query_in_environment, "the query of SESSION_HISTORY_URL"),
    (of_query_in_file, f"the query of the URL in {IN_TABLE}"),
    (of_query_of_shard, f"the query of a URL of wrapper sharded in {IN_SHARDED}"),
    (of_query, "the query of the URL given to from_url"),
    (of_argument, "the arguments of from_url"),
    (of_settings, "[session-history.options]"),
]


@pytest.mark.parametrize(("source", "place"), PLACES)
class TestOption:
    def test_wrong_value_is_shown_with_its_place(self, configure: Configure, source: Any, place: str) -> None:
        where = place.format("SYNCHRONOUS")
        expected = f"sqlite://: synchronous: Input should be 'FULL' or 'NORMAL' ('off' in {where})"
        assert source(configure, "synchronous", "off") == expected

    def test_unknown_name_is_shown_with_its_place(self, configure: Configure, source: Any, place: str) -> None:
        where = place.format("SYNCHRONUS")
        expected = f"sqlite://: unknown option 'synchronus' in {where}: did you mean 'synchronous'? Options: "
        assert source(configure, "synchronus", SECRET).startswith(expected)


class TestSource:
    """Each error of the configuration says where its cause was written."""

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("h.db", "{} has no scheme followed by ://"),
            (f"u:{SECRET}@h://", "{} has no scheme followed by ://"),
            ("sqlite:///h.db?synchronous", "the query of {} is not a list of name=value"),
            ("sqlite:///h.db?a=1&a=2", "the query of {} names 'a' twice"),
            (f"sqlite:///u:a?{SECRET}=1&{SECRET}=@h", "the query of {} names an option twice"),
            ("sqlite:///h.db?url=1", "unknown option 'url' in the query of {}"),
            ("sqlite://", "url: names no file: .* (in {})"),
            ("sqlite:///:memory:", "path :memory: .* (for {})"),
            ("sqlite:///h.db?busy_timeout=0", "busy_timeout: Input should be greater than 0 ('0' in the query of {})"),
            ("nosuch://h", "no provider for the URL scheme 'nosuch' in {}."),
            ("sqlite+aiosqlite://h", "'sqlite+aiosqlite' in {}: did you mean 'sqlite'?"),
            ("redis://h?wait_timeout=3", "wait_timeout requires wait_replicas: .* (in the query of {})"),
            ("redis://h,i", "several hosts are a cluster: .* (in {})"),
            ("postgresql://h/d?sslmode=x", "sslmode must be one of .* (in the query of {})"),
            ("postgresql://h:x/d", "a port must be a number .* (for {})"),
        ],
    )
    def test_flaw_of_a_url_names_the_place_of_the_url(self, configure: Configure, url: str, text: str) -> None:
        def require(place: str, found: str) -> None:
            position = 0
            for part in text.format(place).split(".*"):
                position = found.index(part, position) + len(part)

        require("the URL given to from_url", error_of(lambda: SessionHistoryService.from_url(url)))
        require("the URL in [session-history]", error_of(lambda: chain.open_chain(Settings(url=url))))
        configure(f"[session-history]\nurl = '{url}'\n")
        require(f"the URL in {IN_TABLE}", error_of())
        configure(URL=url)
        require("SESSION_HISTORY_URL", error_of())

    def test_option_given_twice_names_both_places(self, configure: Configure) -> None:
        configure(URL="sqlite:///h.db?busy_timeout=1", OPTION_BUSY_TIMEOUT="2")
        places = "the query of SESSION_HISTORY_URL and in SESSION_HISTORY_OPTION_BUSY_TIMEOUT"
        assert error_of() == f"given twice, in {places}: busy_timeout"

    def test_flaw_of_two_options_names_both_places(self, configure: Configure) -> None:
        configure(URL="redis://h?wait_timeout=9&timeout=2", OPTION_WAIT_REPLICAS="1", OPTION_MAX_CONNECTIONS="3")
        assert error_of().endswith("wait_timeout must be shorter than timeout (in the query of SESSION_HISTORY_URL)")
        configure(URL="redis://h?wait_timeout=9", OPTION_TIMEOUT="2")
        assert error_of().endswith("(in the query of SESSION_HISTORY_URL and in SESSION_HISTORY_OPTION_TIMEOUT)")

    def test_flaw_that_only_the_provider_finds_names_the_variable(self, configure: Configure) -> None:
        configure(URL="postgresql://h/d", OPTION_CONNECT_TIMEOUT="soon")
        assert error_of().endswith("whole number of seconds (in SESSION_HISTORY_OPTION_CONNECT_TIMEOUT)")

    def test_provider_of_unknown_credentials_names_the_url(
        self, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for prefix in ("TABLESTORE", "ALIBABA_CLOUD"):
            for name in ("ACCESS_KEY_ID", "ACCESS_KEY_SECRET"):
                monkeypatch.delenv(f"{prefix}_{name}", raising=False)
        configure(URL="tablestore://i.cn-hangzhou.ots.aliyuncs.com")
        assert error_of().endswith("(for SESSION_HISTORY_URL)")

    @pytest.mark.parametrize(
        ("text", "flaw"),
        [
            (None, "app.toml (named by SESSION_HISTORY_CONFIG) cannot be read: No such file"),
            ("nonsense", "app.toml (named by SESSION_HISTORY_CONFIG) is not TOML: "),
            ("[other]", "app.toml (named by SESSION_HISTORY_CONFIG) has no table [session-history]"),
            ("[session-history]", f"{IN_TABLE}: url is missing"),
            ("[session-history]\nurl = 5", f"{IN_TABLE}: url: Input should be a valid string"),
            ("[session-history]\nulr = 'x://'", f"{IN_TABLE}: unknown setting 'ulr': did you mean 'url'?"),
            ("[session-history]\nwrappers = ['framd']", f"no wrapper 'framd' in {IN_TABLE}. "),
            (
                "[session-history]\nwrappers = ['sharded']",
                f"wrapper sharded: shards: Field required (in {IN_SHARDED})",
            ),
            (
                "[session-history]\nwrappers = ['sharded']\nwrapper-options.sharded.shard = 5",
                f"unknown option 'shard' in {IN_SHARDED}: did you mean 'shards'? Options: shards",
            ),
            (
                "[session-history]\nwrappers = ['sharded']\nwrapper-options.sharded.shards = ['sqlite://']",
                f"(in a URL of wrapper sharded in {IN_SHARDED})",
            ),
            (
                "[session-history]\nwrappers = ['sharded']\nwrapper-options.sharded.shards = ['nosuch://']",
                f"'nosuch' in a URL of wrapper sharded in {IN_SHARDED}. ",
            ),
        ],
    )
    def test_flaw_of_a_file_names_the_file_and_the_table(
        self, configure: Configure, text: str | None, flaw: str
    ) -> None:
        configure(text, CONFIG="app.toml")
        assert flaw in error_of()

    def test_file_that_is_an_argument_is_not_named_by_the_environment(self, configure: Configure) -> None:
        configure("nonsense")
        assert error_of(lambda: SessionHistoryService.from_config("app.toml")).startswith("app.toml is not TOML: ")

    def test_unknown_scheme_and_wrapper_have_the_place(self) -> None:
        with pytest.raises(UnknownScheme) as scheme:
            registry.open_provider("nosuch://", {}, place="here")
        assert scheme.value.place == "here"
        with pytest.raises(UnknownWrapper) as wrapper:
            chain.open_chain(Settings(url="memory://", wrappers=["x"]))
        assert wrapper.value.place == "[session-history]"

    def test_missing_url_names_the_file(self) -> None:
        settings = Settings.model_validate({"wrappers": ["x"]}, context=Sources("app.toml"))
        settings = settings.model_copy(update={"wrappers": []})  # as if the wrapper asked for the store
        assert error_of(lambda: chain.open_chain(settings)) == f"no store is configured: set url in {IN_TABLE}"

    def test_settings_from_different_places_are_equal(self, configure: Configure) -> None:
        configure('[session-history]\nurl = "memory://"\n')
        of_file = config.load("app.toml", {})
        of_variable = config.load(environ={"SESSION_HISTORY_URL": "memory://"})
        assert of_file == of_variable == Settings(url="memory://")
        assert of_file.sources.url != of_variable.sources.url


class Colour(Enum):
    RED = "red"


class Options(ProviderOptions):
    """One option of each kind."""

    size: int = 1
    seconds: Annotated[float, Field(gt=0)] = 1.0
    limit: Annotated[int, Field(ge=1)] | None = None
    fast: bool = True
    colour: Colour = Colour.RED
    mode: Literal["a", "b"] = "a"
    name: Annotated[str, Field(max_length=3)] = "x"
    names: tuple[int, ...] = ()
    either: bool | Annotated[str, Field(max_length=3)] = True
    password: int = 1
    api_token: int = 1
    key_size: int = 1
    secret_mode: Literal["a", "b"] = "a"
    unseen: int = Field(default=1, repr=False)


def flaw_of(**values: Any) -> str:
    written = Written({"url": "x://", **values}, lambda _: "P")
    return error_of(lambda: validated(Options, written, source="x://"))


class TestValue:
    @pytest.mark.parametrize(
        ("name", "value", "shown"),
        [
            ("size", "many", "'many'"),
            ("size", 1.5, "1.5"),
            ("seconds", -1, "-1"),
            ("seconds", "nan s", "'nan s'"),
            ("limit", "0", "'0'"),
            ("fast", "perhaps", "'perhaps'"),
            ("colour", "rot", "'rot'"),
            ("mode", "c", "'c'"),
            ("mode", "a\n", "'a\\\\n'"),
        ],
    )
    def test_wrong_number_or_choice_is_shown(self, name: str, value: Any, shown: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"\({shown} in P\)$"):
            validated(Options, Written({"url": "x://", name: value}, lambda _: "P"), source="x://")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("name", SECRET),
            ("names", [SECRET]),
            ("names", SECRET),
            ("either", SECRET),
            ("password", SECRET),
            ("api_token", SECRET),
            ("key_size", SECRET),
            ("secret_mode", SECRET),
            ("unseen", SECRET),
            ("size", {SECRET: SECRET}),
            ("size", [SECRET]),
            ("size", SECRET + "x" * 30),
            ("size", f"u:{SECRET}@h"),
            ("mode", f"x://{SECRET}"),
            ("unknown", SECRET),
        ],
    )
    def test_value_that_may_be_a_secret_is_not_shown(self, name: str, value: Any) -> None:
        assert name in flaw_of(**{name: value})

    @pytest.mark.parametrize(
        "url",
        [
            f"sqlite:///u:a?synchronous={SECRET}@h",
            f"sqlite:///u:a?synchronous={SECRET}&x=@h",
            f"sqlite:///u:a?{SECRET}=x@h",
            f"sqlite:///u:a?{SECRET}@h=x",
            f"sqlite:///u:a?{SECRET}=x&busy_timeout={SECRET}&%40",
            f"postgresql://h/d?password=a&{SECRET}=b",
            f"postgresql://h/d?sslpassword=a&pool_size={SECRET}",
            f"redis://u:a?timeout={SECRET}@h",
            f"redis://u:a#?timeout={SECRET}@h",
            f"{SECRET}@x://h",
            f"u:{SECRET}@x",
        ],
    )
    def test_rest_of_a_password_that_is_not_encoded_is_not_shown(self, configure: Configure, url: str) -> None:
        error_of(lambda: SessionHistoryService.from_url(url))
        configure(URL=url)
        error_of()

    def test_unknown_option_beside_a_password_says_why_it_is_not_shown(self) -> None:
        flaw = error_of(lambda: registry.open_provider(f"postgresql://h/d?password=a&{SECRET}=b&x=c", {}))
        assert flaw == (
            "postgresql://: an unknown option in the query of the URL given to from_url, which may be a part of a "
            "password: characters such as ?, & and @ in a password must be percent-encoded"
        )

    def test_unknown_option_of_the_environment_is_shown_beside_a_password_in_the_url(
        self, configure: Configure
    ) -> None:
        configure(URL=f"postgresql://h/d?password={SECRET}", OPTION_COLOUR="red", OPTION_POOL_SIZE="-1")
        found = error_of()
        assert "unknown option 'colour' in SESSION_HISTORY_OPTION_COLOUR" in found
        assert "('-1' in SESSION_HISTORY_OPTION_POOL_SIZE)" in found
