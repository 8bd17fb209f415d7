"""The runtime configuration, and the discovery of providers and wrappers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import session_history
from session_history import (
    PostgresqlSessionHistoryService,
    RedisSessionHistoryService,
    SessionHistoryService,
    SqliteSessionHistoryService,
)
from session_history.config import chain, registry
from session_history.config import settings as config
from session_history.config.chain import open_chain
from session_history.config.settings import Settings
from session_history.errors import (
    ConfigurationError,
    MissingDriver,
    PluginError,
    UnknownScheme,
    UnknownWrapper,
)
from session_history.providers.memory import MemoryProvider
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history.wrappers.sharded import ShardedProvider
from support import ROOT

Opened = list[tuple[Path, dict[str, Any]]]
Install = Callable[..., None]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """The path and the options of each SQLite provider that the test opens."""
    calls: Opened = []

    class RecordingProvider(MemoryProvider):
        def __init__(self, path: Any, **options: Any) -> None:
            super().__init__()
            calls.append((Path(path), options))

    monkeypatch.setattr("session_history.providers.sqlite.SqliteProvider", RecordingProvider)
    return calls


def options(synchronous: str = "FULL", busy_timeout: float = 10.0) -> dict[str, Any]:
    return {"synchronous": synchronous, "busy_timeout": busy_timeout, "access": "owner"}


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("sqlite:///history.db", "history.db"),
            ("sqlite:////var/lib/h.db", "/var/lib/h.db"),
            ("SQLITE:///a%20b%3F%25.db", "a b?%.db"),
        ],
    )
    def test_path_is_relative_or_absolute_and_decoded(self, opened: Opened, url: str, path: str) -> None:
        registry.open_provider(url, {})
        assert opened == [(Path(path), options())]

    def test_options_come_from_the_query_and_from_arguments(self, opened: Opened) -> None:
        registry.open_provider("sqlite:///h.db?synchronous=normal&busy_timeout=2.5", {})
        registry.open_provider("sqlite:///h.db?busy_timeout=3", {"synchronous": "NORMAL"})
        assert opened == [(Path("h.db"), options("NORMAL", 2.5)), (Path("h.db"), options("NORMAL", 3.0))]

    @pytest.mark.parametrize(
        ("url", "flaw"),
        [
            ("history.db", "no scheme"),
            ("sqlite://", "names no file"),
            ("sqlite:///", "names no file"),
            ("sqlite://host/h.db", "names no file"),
            (
                "sqlite:///h.db?sync=FULL",
                r"option 'sync' in the query of the URL given to from_url\. Options: access, busy_timeout, s",
            ),
            ("sqlite:///h.db?synchronous=OFF", "synchronous: Input should be 'FULL' or 'NORMAL'"),
            ("sqlite:///h.db?busy_timeout=0", "busy_timeout: Input should be greater than 0"),
            ("sqlite:///h.db?synchronous", "name=value"),
            ("sqlite:///h.db?busy_timeout=1&busy_timeout=2", "twice"),
            ("sqlite:///h.db?url=x", "url"),
            ("sqlite:///h.db#x", "fragment"),
            ("sqlite:///:memory:", "use memory://"),
            ("sqlite:///a%00b", "contains NUL"),
            (None, "must be a str, not NoneType"),
            ("memory://host", "write memory://"),
            ("sqlite://", r"^sqlite://: url: names no file"),
            ("memory://?size=1", r"unknown option 'size' in the query of .*\. Options: none"),
        ],
    )
    def test_flaw_in_a_url_is_named(self, url: Any, flaw: str) -> None:
        with pytest.raises(ConfigurationError, match=flaw):
            registry.open_provider(url, {})

    def test_option_in_the_url_and_as_argument_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^given twice, in the query of .* and in .*: busy_timeout$"):
            registry.open_provider("sqlite:///h.db?busy_timeout=1", {"busy_timeout": 2})

    @pytest.mark.parametrize(
        ("options", "flaw"),
        [
            ({"synchronous": "OFF"}, "synchronous must be"),
            ({"synchronous": "full"}, "synchronous must be"),
            ({"busy_timeout": "5"}, "busy_timeout must be"),
            ({"busy_timeout": -5}, "busy_timeout must be"),
            ({"busy_timeout": float("inf")}, "busy_timeout must be"),
        ],
    )
    def test_flaw_in_an_argument_of_the_constructor_is_named(self, options: Any, flaw: str) -> None:
        with pytest.raises(ConfigurationError, match=flaw):
            SqliteSessionHistoryService("h.db", **options)
        with pytest.raises(ConfigurationError, match="memory://"):
            SqliteSessionHistoryService(":memory:")
        with pytest.raises(ConfigurationError, match="not a URL"):
            SqliteSessionHistoryService("sqlite:///h.db")

    async def test_start_with_an_impossible_path_raises_configuration_error(self, tmp_path: Path) -> None:
        places = [(tmp_path / "no" / "h.db", "there is no folder"), (tmp_path, "is a folder")]
        for path, flaw in [*places, (tmp_path / ("x" * 300), "File name too long")]:
            with pytest.raises(ConfigurationError, match=flaw):
                await SqliteSessionHistoryService(path).start()

    def test_errors_and_reprs_show_no_secret(self) -> None:
        for url in ("sqlite://user:hunter2@host/h.db", "sqlite:///h.db?hunter=hunter2", "nosuch://u:hunter2@h"):
            with pytest.raises(ConfigurationError) as error:
                registry.open_provider(url, {})
            assert "hunter2" not in f"{error.value}{error.value!r}"
        for url in (
            "sqlite:///u:hunter?hunter2=x@h",
            "memory://u:a?b=c&hunter2=@h",
            "postgresql://u:h@unt?hunter2=x@h/db",
        ):
            with pytest.raises(ConfigurationError, match="must be percent-encoded") as error:
                registry.open_provider(url, {})
            assert "hunter2" not in f"{error.value}{error.value!r}{error.value.__context__}"
        assert "hunter2" not in repr(Settings(url="x://u:hunter2@h", options={"a": "hunter2"}))


class TestSettings:
    def test_environment_sets_url_and_options(self) -> None:
        environ = {"SESSION_HISTORY_URL": "sqlite:///h.db", "SESSION_HISTORY_OPTION_SYNCHRONOUS": "NORMAL"}
        assert config.load(environ=environ) == Settings(url="sqlite:///h.db", options={"synchronous": "NORMAL"})

    def test_environment_overrides_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "app.toml"
        file.write_text('[session-history]\nurl = "memory://"\n[session-history.options]\nbusy_timeout = 3\n')
        named = {"SESSION_HISTORY_CONFIG": str(file)}
        expected = Settings(url="memory://", options={"busy_timeout": 3})
        assert config.load(environ=named) == config.load(file, {}) == expected
        option = config.load(environ={**named, "SESSION_HISTORY_OPTION_A": "b"})
        assert option == Settings(url="memory://", options={"busy_timeout": 3, "a": "b"})
        both = config.load(environ={**named, "SESSION_HISTORY_URL": "sqlite:///h.db", "SESSION_HISTORY_OPTION_A": "b"})
        assert both == Settings(url="sqlite:///h.db", options={"a": "b"})

    def test_url_in_the_environment_replaces_wrappers_of_the_file(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = tmp_path / "app.toml"
        file.write_text('[session-history]\nwrappers = ["sharded"]\n')
        assert config.load(file, {}).wrappers == ["sharded"]
        with caplog.at_level("WARNING", "session_history"):
            assert config.load(file, {"SESSION_HISTORY_URL": "memory://"}) == Settings(url="memory://")
        assert "wrappers included" in caplog.text

    def test_url_that_no_wrapper_uses_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        shards = {"sharded": {"shards": ["memory://"]}}
        settings = {"wrappers": ["sharded"], "wrapper-options": shards}
        open_chain(Settings.model_validate(settings))
        assert caplog.text == ""
        open_chain(Settings.model_validate({**settings, "url": "sqlite:///c.db"}))
        assert "no wrapper uses url" in caplog.text

    def test_missing_configuration_names_the_variable_to_set(self) -> None:
        for environ in ({}, {"SESSION_HISTORY_URL": ""}, {"OTHER": "x"}, {"SESSION_HISTORY_TEST_SHARED": "x"}):
            with pytest.raises(ConfigurationError, match="set SESSION_HISTORY_URL"):
                config.load(environ=environ)

    @pytest.mark.parametrize("name", ["URI", "SYNCHRONOUS", "OPTIONS_SYNCHRONOUS"])
    def test_misspelt_variable_is_only_logged(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        environ = {f"SESSION_HISTORY_{name}": "hunter2", "SESSION_HISTORY_URL": "memory://"}
        assert config.load(environ=environ) == Settings(url="memory://")
        assert f"SESSION_HISTORY_{name}" in caplog.text
        assert "hunter2" not in caplog.text

    @pytest.mark.parametrize(
        ("text", "flaw"),
        [
            (None, "cannot be read: No such file"),
            ("not toml", "is not TOML"),
            ("[other]", r"no table \[session-history\]"),
            ("session-history = 5", r"no table \[session-history\]"),
            ("[session-history]", r"\[session-history\]: url is missing"),
            ("[session-history]\nurl = 5", "url: Input should be a valid string"),
            (
                '[session-history]\nurl = "memory://"\nbusy_timeout = "x"',
                r"app.toml, .*: unknown setting 'busy_timeout'\. Options of the store belong to \[session-history.o",
            ),
            ('[session-history]\nulr = "memory://"', "unknown setting 'ulr': did you mean 'url'?"),
            ('[session-history]\nurl = "memory://"\noptions = 5', "options: Input should be a valid dict"),
            ('[session-history]\nwrappers = "sharded"', "wrappers: Input should be a valid list"),
            ('[session-history]\nwrappers = ["sharded", "sharded"]', "wrappers names a wrapper twice"),
            (
                '[session-history]\nurl = "memory://"\n[session-history.wrapper-options.sharded]\nshards = []',
                "there are options for 'sharded', which wrappers does not name",
            ),
        ],
    )
    def test_flaw_in_the_file_is_named(self, tmp_path: Path, text: str | None, flaw: str) -> None:
        file = tmp_path / "app.toml"
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigurationError, match=flaw):
            config.load(file, {})

    def test_option_called_url_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SESSION_HISTORY_URL", "memory://")
        monkeypatch.setenv("SESSION_HISTORY_OPTION_URL", "x")
        with pytest.raises(ConfigurationError, match="unknown option 'url' in SESSION_HISTORY_OPTION_URL"):
            SessionHistoryService.from_config()

    def test_service_of_the_configuration_passes_url_and_options(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SESSION_HISTORY_URL", "sqlite:////h.db")
        monkeypatch.setenv("SESSION_HISTORY_OPTION_BUSY_TIMEOUT", "4")
        SessionHistoryService.from_config()
        assert opened == [(Path("/h.db"), options(busy_timeout=4.0))]

    async def test_service_of_the_configuration_does_no_io_before_start(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SESSION_HISTORY_URL", f"sqlite:///{tmp_path / 'h.db'}")
        service = SessionHistoryService.from_config()
        assert not (tmp_path / "h.db").exists()
        async with service:
            assert await service.health()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with a plugin in a folder of ``sys.path``."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package: str, name: str, source: str, group: str = "session_history") -> None:
        module = package.replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata + ("Provides-Extra: paint\n" if package == "paint-store" else ""))
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")

    return install


PLUGIN = """
from session_history.providers.memory import MemoryProvider
from session_history_hooks import ProviderOptions, ProviderSpec, hookimpl

class Options(ProviderOptions):
    colour: str = "red"

class Provider(MemoryProvider):
    def __init__(self, options):
        super().__init__()
        self.options = options

@hookimpl
def session_history_providers():
    yield ProviderSpec("other", Options, Provider)
    yield ProviderSpec("{scheme}", Options, Provider)
"""

HOOK = "from session_history_hooks import hookimpl\n@hookimpl\ndef session_history_providers():\n"


class TestProviderPlugins:
    async def test_installed_plugin_provides_its_scheme(self, install: Install) -> None:
        install("paint-store", "paint", PLUGIN.format(scheme="paint"))
        assert set(registry.installed_schemes()) > {"memory", "paint", "sqlite"}
        provider = registry.open_provider("paint://host/x?colour=blue", {})
        assert repr(provider.options) == "Options(colour='blue')"  # type: ignore[attr-defined]
        async with SessionHistoryService.from_url("paint://", colour="green") as service:
            await service.create_session("u", "s")

    async def test_broken_plugin_does_not_affect_other_schemes(self, install: Install) -> None:
        install("broken-store", "broken", "raise RuntimeError('broken at import')")
        async with SessionHistoryService.from_url("memory://") as service:
            assert await service.health()
        with pytest.raises(PluginError, match="broken_store of broken-store does not work"):
            registry.open_provider("broken://", {})

    def test_open_imports_only_the_plugin_of_the_scheme(self) -> None:
        code = (
            "import sys; from session_history import SessionHistoryService as S; S.from_url('memory://');"
            "stores = ['memory', 'postgresql', 'redis', 'sqlite', 'tablestore'];"
            "sys.exit([name for name in stores if f'session_history.providers.{name}' in sys.modules] != ['memory'])"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_unknown_scheme_lists_the_installed_ones(self) -> None:
        with pytest.raises(
            UnknownScheme,
            match=r"'mongodb' in .*\. Installed: memory, .*sqlite.*\. Install a package .* 'session_history'\.",
        ) as error:
            registry.open_provider("mongodb://x", {})
        assert (error.value.scheme, error.value.installed) == ("mongodb", registry.installed_schemes())

    @pytest.mark.parametrize(
        ("scheme", "similar"),
        [("sqlite3", "sqlite"), ("postgressql", "postgresql"), ("Reddis", "redis' or 'rediss")],
    )
    def test_unknown_scheme_suggests_similar_ones(self, scheme: str, similar: str) -> None:
        with pytest.raises(UnknownScheme, match=f"'{scheme.lower()}' in .*: did you mean '{similar}.* Installed: "):
            registry.open_provider(f"{scheme}://x", {})

    @pytest.mark.parametrize(
        ("scheme", "meant"),
        [
            ("sqlite+aiosqlite", "'sqlite'"),
            ("sqlite+pysqlite", "'sqlite'"),
            ("postgresql+asyncpg", "'postgresql'"),
            ("postgres+psycopg", "'postgres'"),
            ("pgsql", "'postgresql'"),
            ("psql+x", "'postgresql'"),
            ("redis+unix", "'redis'"),
            ("redis+sentinel", "'redis'"),
            ("valkey+unix", "'valkey'"),
            ("unix", "'redis'"),
            ("redis+clustr", "'redis+cluster' or 'rediss+cluster'"),
            ("sqlit+aiosqlite", "'sqlite'"),
            ("inmemory", "'memory'"),
        ],
    )
    def test_scheme_of_another_library_suggests_ours(self, scheme: str, meant: str) -> None:
        with pytest.raises(
            UnknownScheme, match=rf"'{re.escape(scheme)}' in .*: did you mean {re.escape(meant)}\? Inst"
        ):
            registry.open_provider(f"{scheme}://x", {})

    @pytest.mark.parametrize("scheme", ["mysql+pymysql", "mongodb+srv", "+"])
    def test_scheme_of_an_unsupported_database_suggests_none(self, scheme: str) -> None:
        with pytest.raises(UnknownScheme, match=r"Install a package with an entry point") as error:
            registry.open_provider(f"{scheme}://x", {})
        assert "did you mean" not in str(error.value)

    def test_other_name_of_a_store_that_is_not_installed_is_not_suggested(self) -> None:
        assert "did you mean" not in str(UnknownScheme("pgsql", ("memory", "sqlite")))
        assert "did you mean 'postgresql'?" in str(UnknownScheme("postgres", ("memory", "postgresql")))

    def test_unknown_option_suggests_similar_ones(self) -> None:
        with pytest.raises(
            ConfigurationError, match=r"'sinchronous' in .*: did you mean 'synchronous'\? .*; unknown .*Options:"
        ):
            registry.open_provider("sqlite:///h.db?sinchronous=FULL&colour=red", {})

    def test_missing_driver_names_its_extra(self, install: Install) -> None:
        install("paint-store", "paint", "import no_such_driver")
        with pytest.raises(MissingDriver, match=r"'no_such_driver': pip install 'paint-store\[paint\]'") as error:
            registry.open_provider("paint://", {})
        assert error.value.name == "no_such_driver"

    @pytest.mark.parametrize("scheme", ["redis", "valkeys", "rediss+cluster", "valkey+cluster"])
    def test_missing_driver_of_any_scheme_of_a_plugin_names_the_one_extra(self, scheme: str) -> None:
        code = (
            "import sys; sys.modules['redis'] = None; from session_history.config.registry import open_provider;"
            f"open_provider('{scheme}://h', {{}})"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "MissingDriver" in ended.stderr
        assert "session-history[redis]" in ended.stderr

    def test_python_without_sqlite_is_named_as_the_cause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in [name for name in sys.modules if name.startswith("session_history.providers.sqlite")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "sqlite3", None)
        with pytest.raises(MissingDriver, match="'sqlite3': this Python was built without it"):
            registry.open_provider("sqlite:///h.db", {})

    def test_missing_driver_whose_name_is_a_prefix_of_the_plugin_is_named(self, install: Install) -> None:
        install("redis-hist", "paint", "import redis_his")
        with pytest.raises(MissingDriver, match="'redis_his': install redis-hist with all its requirements"):
            registry.open_provider("paint://", {})

    def test_entry_point_in_capitals_is_found_in_lower_case(self, install: Install) -> None:
        install("paint-store", "Paint", PLUGIN.format(scheme="Paint"))
        assert "paint" in registry.installed_schemes()
        assert registry.open_provider("paint://", {})

    def test_two_plugins_for_one_scheme_are_both_named(self, install: Install) -> None:
        install("paint-store", "paint", PLUGIN.format(scheme="paint"))
        install("other-store", "paint", PLUGIN.format(scheme="paint"))
        with pytest.raises(PluginError, match="other_store of other-store, paint_store of paint-store"):
            registry.open_provider("paint://", {})

    @pytest.mark.parametrize(
        "source",
        [
            PLUGIN.format(scheme="something-else"),
            "",
            HOOK + "    return [1 / 0]",
            HOOK.replace("()", "(nonsense)") + "    return []",
            HOOK + "    return ['paint']",
            PLUGIN.format(scheme="paint").replace("Options, Provider)", "Options, lambda options: 3)"),
        ],
    )
    def test_plugin_that_does_not_provide_its_scheme_is_named(self, install: Install, source: str) -> None:
        install("paint-store", "paint", source)
        with pytest.raises(PluginError, match="paint_store of paint-store"):
            registry.open_provider("paint://", {})

    def test_plugin_that_describes_other_schemes_lists_them(self, install: Install) -> None:
        install("paint-store", "paint", PLUGIN.format(scheme="pant"))
        with pytest.raises(PluginError, match="does not describe 'paint'; it describes: 'other', 'pant'"):
            registry.open_provider("paint://", {})


WRAPPER = """
from session_history.providers.memory import MemoryProvider
from session_history_hooks import WrapperOptions, WrapperSpec, hookimpl

class Options(WrapperOptions):
    colour: str = "red"
    url: str | None = None

class Wrapper(MemoryProvider):
    def __init__(self, options, open_inner):
        super().__init__()
        self.options = options
        self.inner = open_inner(options.url) if options.url else open_inner()

    def __repr__(self):
        return f"{name}({{self.options.colour}}, {{self.inner!r}})"

@hookimpl
def session_history_wrappers():
    yield WrapperSpec("{name}", Options, Wrapper)
"""

WRAPPERS = "session_history.wrappers"


def settings(**values: Any) -> Settings:
    return Settings.model_validate({name.replace("_", "-"): value for name, value in values.items()})


def sharded(*shards: str, **values: Any) -> Settings:
    return settings(wrappers=["sharded"], wrapper_options={"sharded": {"shards": [*shards]}}, **values)


class TestWrappers:
    @pytest.fixture(autouse=True)
    def _wrappers(self, install: Install) -> None:
        for name in ("tinted", "framed"):
            install(f"{name}-wrapper", name, WRAPPER.format(name=name), WRAPPERS)

    def test_wrappers_are_opened_outermost_first(self, opened: Opened) -> None:
        provider = chain.open_chain(settings(url="sqlite:///h.db", wrappers=["framed", "tinted"]))
        assert repr(provider).startswith("framed(red, tinted(red, ")
        assert opened == [(Path("h.db"), options())]

    def test_options_belong_to_their_wrapper(self) -> None:
        provider = chain.open_chain(
            settings(url="memory://", wrappers=["framed", "tinted"], wrapper_options={"tinted": {"colour": "blue"}})
        )
        assert repr(provider).startswith("framed(red, tinted(blue, ")

    def test_wrapper_may_open_another_url_than_the_configured_one(self, opened: Opened) -> None:
        chosen = {"framed": {"url": "sqlite:///other.db"}}
        chain.open_chain(settings(url="sqlite:///h.db", wrappers=["framed", "tinted"], wrapper_options=chosen))
        assert opened == [(Path("other.db"), options())]

    def test_missing_url_is_named_when_a_wrapper_needs_it(self) -> None:
        with pytest.raises(ConfigurationError, match=r"no store is configured: set url in \[session-history\]"):
            chain.open_chain(settings(wrappers=["framed"]))

    def test_installed_wrappers_are_listed_apart_from_schemes(self) -> None:
        assert registry.installed_wrappers() == ("framed", "sharded", "tinted")
        assert not set(registry.installed_wrappers()) & set(registry.installed_schemes())

    def test_open_imports_only_the_wrapper_that_is_named(self) -> None:
        code = (
            "import sys; from session_history.config import registry;"
            "sys.exit(any('session_history.wrappers' in name for name in sys.modules))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
        chain.open_chain(settings(url="memory://", wrappers=["framed"]))
        assert "tinted_wrapper" not in sys.modules

    def test_unknown_wrapper_suggests_similar_ones(self) -> None:
        with pytest.raises(
            UnknownWrapper,
            match=r"no wrapper 'sharted' in .*: did you mean 'sharded'\? Installed: framed, sharded, tinted\.",
        ) as error:
            chain.open_chain(settings(url="memory://", wrappers=["sharted"]))
        assert (error.value.name, error.value.installed) == ("sharted", registry.installed_wrappers())

    def test_unknown_wrapper_names_the_group_of_entry_points(self) -> None:
        with pytest.raises(UnknownWrapper, match=r"'x' in .*\. Installed: .* in the group 'session_history\.wrappers'"):
            chain.open_chain(settings(url="memory://", wrappers=["x"]))

    def test_unknown_option_is_named_without_its_value(self) -> None:
        wrong = settings(url="memory://", wrappers=["framed"], wrapper_options={"framed": {"color": "hunter2"}})
        with pytest.raises(
            ConfigurationError, match=r"wrapper framed: unknown option 'color' in .*: did you mean 'colour'"
        ) as error:
            chain.open_chain(wrong)
        assert "hunter2" not in f"{error.value!r}{error.value.__context__}{wrong!r}"

    def test_missing_driver_names_the_wrapper(self, install: Install) -> None:
        install("paint-store", "paint", "import no_such_driver", WRAPPERS)
        with pytest.raises(MissingDriver, match=r"wrapper paint needs the module 'no_such_driver': pip install"):
            chain.open_chain(settings(url="memory://", wrappers=["paint"]))

    def test_error_of_the_inner_provider_is_passed_on(self) -> None:
        with pytest.raises(UnknownScheme, match="'mongodb'"):
            chain.open_chain(settings(url="mongodb://x", wrappers=["framed"]))

    @pytest.mark.parametrize(
        "source",
        [
            "raise RuntimeError('broken at import')",
            "",
            WRAPPER.format(name="something-else"),
            PLUGIN.format(scheme="paint"),
            WRAPPER.format(name="paint").replace("Options, Wrapper)", "Options, lambda options, open_inner: 3)"),
        ],
    )
    def test_broken_plugin_is_named(self, install: Install, source: str) -> None:
        install("paint-store", "paint", source, WRAPPERS)
        with pytest.raises(PluginError, match="paint_store of paint-store"):
            chain.open_chain(settings(url="memory://", wrappers=["paint"]))
        assert chain.open_chain(settings(url="memory://", wrappers=["framed"]))

    def test_two_plugins_for_one_wrapper_are_both_named(self, install: Install) -> None:
        for package in ("paint-store", "other-store"):
            install(package, "paint", WRAPPER.format(name="paint"), WRAPPERS)
        with pytest.raises(PluginError, match="other_store of other-store, paint_store of paint-store"):
            chain.open_chain(settings(url="memory://", wrappers=["paint"]))


class TestSharded:
    def test_shards_are_opened_in_order_with_the_options_of_the_store(self, opened: Opened) -> None:
        provider = chain.open_chain(
            sharded("sqlite:///a.db", "sqlite:///b.db?busy_timeout=3", options={"synchronous": "NORMAL"})
        )
        assert isinstance(provider, ShardedProvider)
        assert opened == [(Path("a.db"), options("NORMAL")), (Path("b.db"), options("NORMAL", 3.0))]

    async def test_service_of_a_file_with_shards_stores_sessions(self, tmp_path: Path) -> None:
        file = tmp_path / "app.toml"
        shards = [f"sqlite:///{tmp_path}/{name}.db" for name in "ab"]
        file.write_text(
            f'[session-history]\nwrappers = ["sharded"]\n[session-history.wrapper-options.sharded]\nshards = {shards}\n'
        )
        async with SessionHistoryService.from_config(file) as service:
            for number in range(9):
                await service.create_session(f"user {number}", "s")
        counts = []
        for url in shards:
            shard = SessionHistoryService.from_url(url).provider
            await shard.start()
            counts.append([len((await shard.list(f"user {number}", limit=9)).heads) for number in range(9)])
            await shard.stop()
        assert [sum(pair) for pair in zip(*counts, strict=True)] == [1] * 9
        assert all(map(any, counts))

    def test_example_of_the_sharded_page_opens_its_shards(self, opened: Opened, tmp_path: Path) -> None:
        page = (ROOT / "docs" / "reference" / "sharded.md").read_text(encoding="utf-8")
        example = re.search(r"^```toml\n(\[session-history\]\nwrappers.*?)^```", page, re.MULTILINE | re.DOTALL)
        assert example is not None
        file = tmp_path / "app.toml"
        file.write_text(example[1])
        chain.open_chain(config.load(file, {}))
        assert opened == [(Path("a.db"), options()), (Path("b.db"), options())]

    @pytest.mark.parametrize(
        ("shards", "flaw"),
        [
            ([], "wrapper sharded: shards: List should have at least 1 item"),
            (
                ["sqlite:///hunter2.db", "memory://", "sqlite:///hunter2.db"],
                r"shards: \[0\] and \[2\] are the same URL",
            ),
            ([5], "shards.0: Input should be a valid string"),
            (["memory://", "sqlite://"], "sqlite://: url: names no file"),
        ],
    )
    def test_flaw_in_the_shards_is_named(self, shards: Any, flaw: str) -> None:
        with pytest.raises(ConfigurationError, match=flaw) as error:
            chain.open_chain(sharded(*shards))
        assert "hunter2" not in f"{error.value!r}{error.value.__context__}"

    def test_missing_shards_are_named(self) -> None:
        with pytest.raises(ConfigurationError, match="wrapper sharded: shards: Field required"):
            chain.open_chain(settings(url="memory://", wrappers=["sharded"]))

    def test_repr_shows_no_url_of_a_shard(self) -> None:
        assert "hunter2" not in repr(sharded("x://u:hunter2@h"))


class TestPresets:
    def test_presets_open_their_stores_without_io(self) -> None:
        postgresql = PostgresqlSessionHistoryService("postgresql://nowhere.invalid/d", schema="s", pool_size=2)
        redis = RedisSessionHistoryService("redis+cluster://nowhere.invalid", prefix="p", ttl=60)
        assert isinstance(postgresql.provider, PostgresqlProvider)
        assert isinstance(redis.provider, RedisProvider)

    def test_option_that_does_not_fit_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match="durability"):
            PostgresqlSessionHistoryService("postgresql://h/d", durability="never")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="ttl"):
            RedisSessionHistoryService("redis://h", ttl=-1)
        for preset in (PostgresqlSessionHistoryService, RedisSessionHistoryService):
            with pytest.raises(TypeError, match="nosuch"):
                preset("redis://h", nosuch=1)  # type: ignore[call-arg]


def test_version_is_that_of_the_installed_package() -> None:
    assert session_history.__version__ == version("session-history")
