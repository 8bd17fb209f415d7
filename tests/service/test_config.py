"""The runtime configuration, and the discovery of providers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from session_history import SessionHistoryService, SqliteSessionHistoryService
from session_history.config import registry
from session_history.config import settings as config
from session_history.errors import ConfigurationError, MissingDriver, PluginError, UnknownScheme
from session_history.providers.sqlite import SqliteProvider

Install = Callable[..., None]


def settings(provider: object) -> tuple[Path, str, float]:
    assert isinstance(provider, SqliteProvider)
    return provider._path, provider._synchronous, provider._busy_timeout


def opened(url: str, **options: object) -> tuple[Path, str, float]:
    return settings(registry.open_provider(url, options))


class TestUrl:
    def test_paths(self) -> None:
        assert opened("sqlite:///history.db") == (Path.cwd() / "history.db", "FULL", 10.0)
        assert opened("sqlite:////var/lib/h.db")[0] == Path("/var/lib/h.db")
        assert opened("SQLITE:///a%20b%3F%25.db")[0] == Path.cwd() / "a b?%.db"

    def test_options(self) -> None:
        assert opened("sqlite:///h.db?synchronous=normal&busy_timeout=2.5") == (Path.cwd() / "h.db", "NORMAL", 2.5)
        assert opened("sqlite:///h.db?busy_timeout=3", synchronous="NORMAL") == (Path.cwd() / "h.db", "NORMAL", 3.0)

    @pytest.mark.parametrize(
        ("url", "flaw"),
        [
            ("history.db", "no scheme"),
            ("sqlite://", "names no file"),
            ("sqlite:///", "names no file"),
            ("sqlite://host/h.db", "names no file"),
            ("sqlite:///h.db?sync=FULL", r"unknown option 'sync'\. Options: busy_timeout, synchronous"),
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
            ("memory://?size=1", r"unknown option 'size'\. Options: none"),
        ],
    )
    def test_a_flaw_is_named(self, url: Any, flaw: str) -> None:
        with pytest.raises(ConfigurationError, match=flaw):
            registry.open_provider(url, {})

    def test_a_setting_in_two_places(self) -> None:
        with pytest.raises(ConfigurationError, match="in the URL and as an option: busy_timeout"):
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
    def test_a_flaw_is_named_by_the_constructor_too(self, options: Any, flaw: str) -> None:
        with pytest.raises(ConfigurationError, match=flaw):
            SqliteSessionHistoryService("h.db", **options)
        with pytest.raises(ConfigurationError, match="memory://"):
            SqliteSessionHistoryService(":memory:")
        with pytest.raises(ConfigurationError, match="not a URL"):
            SqliteSessionHistoryService("sqlite:///h.db")

    async def test_a_place_that_can_not_be(self, tmp_path: Path) -> None:
        places = [(tmp_path / "no" / "h.db", "there is no folder"), (tmp_path, "is a folder")]
        for path, flaw in [*places, (tmp_path / ("x" * 300), "File name too long")]:
            with pytest.raises(ConfigurationError, match=flaw):
                await SqliteSessionHistoryService(path).start()

    def test_no_secret_in_an_error_or_a_repr(self) -> None:
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
        assert "hunter2" not in repr(config.Config(url="x://u:hunter2@h", options={"a": "hunter2"}))


class TestConfig:
    def test_the_environment(self) -> None:
        environ = {"SESSION_HISTORY_URL": "sqlite:///h.db", "SESSION_HISTORY_OPTION_SYNCHRONOUS": "NORMAL"}
        loaded = config.load(environ=environ)
        assert (loaded.url, loaded.options) == ("sqlite:///h.db", {"synchronous": "NORMAL"})

    def test_a_file_which_the_environment_overrides(self, tmp_path: Path) -> None:
        file = tmp_path / "app.toml"
        file.write_text('[session-history]\nurl = "memory://"\n[session-history.options]\nbusy_timeout = 3\n')
        named = {"SESSION_HISTORY_CONFIG": str(file)}
        assert (
            config.load(environ=named)
            == config.load(file, {})
            == config.Config(url="memory://", options={"busy_timeout": 3})
        )
        option = config.load(environ={**named, "SESSION_HISTORY_OPTION_A": "b"})
        assert option == config.Config(url="memory://", options={"busy_timeout": 3, "a": "b"})
        both = config.load(environ={**named, "SESSION_HISTORY_URL": "sqlite:///h.db", "SESSION_HISTORY_OPTION_A": "b"})
        assert both == config.Config(url="sqlite:///h.db", options={"a": "b"})

    def test_nothing_configured_says_what_to_set(self) -> None:
        for environ in ({}, {"SESSION_HISTORY_URL": ""}, {"OTHER": "x"}, {"SESSION_HISTORY_TEST_SHARED": "x"}):
            with pytest.raises(ConfigurationError, match="set SESSION_HISTORY_URL"):
                config.load(environ=environ)

    @pytest.mark.parametrize("name", ["URI", "SYNCHRONOUS", "OPTIONS_SYNCHRONOUS"])
    def test_a_misspelt_variable_is_named_and_harms_nobody(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        environ = {f"SESSION_HISTORY_{name}": "hunter2", "SESSION_HISTORY_URL": "memory://"}
        assert config.load(environ=environ) == config.Config(url="memory://")
        assert f"SESSION_HISTORY_{name}" in caplog.text
        assert "hunter2" not in caplog.text

    @pytest.mark.parametrize(
        ("text", "flaw"),
        [
            (None, "can not be read: No such file"),
            ("not toml", "is not TOML"),
            ("[other]", r"no table \[session-history\]"),
            ("session-history = 5", r"no table \[session-history\]"),
            ("[session-history]\nurl = 5", "url: Input should be a valid string"),
            (
                '[session-history]\nurl = "memory://"\nlocation = "x"',
                r"app.toml, .*: unknown setting 'location'; options .* belong to \[session-history.options\]",
            ),
            ('[session-history]\nulr = "memory://"', "url: Field required; unknown setting 'ulr'"),
            ('[session-history]\nurl = "memory://"\noptions = 5', "options: Input should be a valid dict"),
        ],
    )
    def test_a_flaw_in_the_file_is_named(self, tmp_path: Path, text: str | None, flaw: str) -> None:
        file = tmp_path / "app.toml"
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigurationError, match=flaw):
            config.load(file, {})

    def test_an_option_called_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SESSION_HISTORY_URL", "memory://")
        monkeypatch.setenv("SESSION_HISTORY_OPTION_URL", "x")
        with pytest.raises(ConfigurationError, match="in the URL and as an option: url"):
            SessionHistoryService.from_config()

    async def test_a_service_of_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SESSION_HISTORY_URL", f"sqlite:///{tmp_path / 'h.db'}")
        monkeypatch.setenv("SESSION_HISTORY_OPTION_BUSY_TIMEOUT", "4")
        service = SessionHistoryService.from_config()
        assert settings(service._provider) == (tmp_path / "h.db", "FULL", 4.0)
        assert not (tmp_path / "h.db").exists()
        async with service:
            assert await service.health()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with a plugin where Python finds it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package: str, scheme: str, source: str) -> None:
        module = package.replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata + ("Provides-Extra: paint\n" if package == "paint-store" else ""))
        (info / "entry_points.txt").write_text(f"[session_history]\n{scheme} = {module}\n")

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


class TestPlugins:
    async def test_an_installed_plugin_serves_its_scheme(self, install: Install) -> None:
        install("paint-store", "paint", PLUGIN.format(scheme="paint"))
        assert set(registry.installed_schemes()) > {"memory", "paint", "sqlite"}
        provider = registry.open_provider("paint://host/x?colour=blue", {})
        assert repr(provider.options) == "Options(colour='blue')"  # type: ignore[attr-defined]
        async with SessionHistoryService.from_url("paint://", colour="green") as service:
            await service.create_session("u", "s")

    async def test_a_broken_neighbour_harms_nobody(self, install: Install) -> None:
        install("broken-store", "broken", "raise RuntimeError('broken at import')")
        async with SessionHistoryService.from_url("memory://") as service:
            assert await service.health()
        with pytest.raises(PluginError, match="broken_store of broken-store does not work"):
            registry.open_provider("broken://", {})

    def test_only_the_plugin_that_is_asked_for_is_loaded(self) -> None:
        code = (
            "import sys; from session_history import SessionHistoryService as S; S.from_url('memory://');"
            "loaded = [name for name in sys.modules if name.startswith('session_history.providers.')];"
            "sys.exit(loaded != ['session_history.providers.memory'])"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_an_unknown_scheme_lists_what_is_installed(self) -> None:
        with pytest.raises(
            UnknownScheme, match=r"'mongodb'\. Installed: memory, .*sqlite.*\. Install a package"
        ) as error:
            registry.open_provider("mongodb://x", {})
        assert (error.value.scheme, error.value.installed) == ("mongodb", registry.installed_schemes())

    @pytest.mark.parametrize(
        ("scheme", "like"),
        [("sqlite3", "sqlite"), ("postgressql", "postgresql"), ("Reddis", "redis' or 'rediss")],
    )
    def test_an_unknown_scheme_is_told_what_is_like_it(self, scheme: str, like: str) -> None:
        with pytest.raises(UnknownScheme, match=f"'{scheme.lower()}': did you mean '{like}.* Installed: "):
            registry.open_provider(f"{scheme}://x", {})

    def test_an_unknown_option_is_told_what_is_like_it(self) -> None:
        with pytest.raises(
            ConfigurationError, match=r"'sinchronous': did you mean 'synchronous'\?; unknown .*Options:"
        ):
            registry.open_provider("sqlite:///h.db?sinchronous=FULL&colour=red", {})

    def test_a_missing_driver_names_its_extra(self, install: Install) -> None:
        install("paint-store", "paint", "import no_such_driver")
        with pytest.raises(MissingDriver, match=r"'no_such_driver': pip install 'paint-store\[paint\]'") as error:
            registry.open_provider("paint://", {})
        assert error.value.name == "no_such_driver"

    @pytest.mark.parametrize("scheme", ["redis", "valkeys", "rediss+cluster", "valkey+cluster"])
    def test_every_scheme_of_a_plugin_names_the_one_extra(self, scheme: str) -> None:
        code = (
            "import sys; sys.modules['redis'] = None; from session_history.config.registry import open_provider;"
            f"open_provider('{scheme}://h', {{}})"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "MissingDriver" in ended.stderr
        assert "session-history[redis]" in ended.stderr

    def test_a_python_without_sqlite_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in [name for name in sys.modules if name.startswith("session_history.providers.sqlite")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "sqlite3", None)
        with pytest.raises(MissingDriver, match="'sqlite3': this Python was built without it"):
            registry.open_provider("sqlite:///h.db", {})

    def test_a_missing_driver_whose_name_begins_like_the_plugin(self, install: Install) -> None:
        install("redis-hist", "paint", "import redis_his")
        with pytest.raises(MissingDriver, match="'redis_his': install redis-hist with all it requires"):
            registry.open_provider("paint://", {})

    def test_an_entry_point_in_capitals(self, install: Install) -> None:
        install("paint-store", "Paint", PLUGIN.format(scheme="Paint"))
        assert "paint" in registry.installed_schemes()
        assert registry.open_provider("paint://", {})

    def test_two_plugins_for_one_scheme(self, install: Install) -> None:
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
    def test_a_plugin_that_does_not_keep_its_word(self, install: Install, source: str) -> None:
        install("paint-store", "paint", source)
        with pytest.raises(PluginError, match="paint_store of paint-store"):
            registry.open_provider("paint://", {})

    def test_a_plugin_that_describes_another_scheme_is_told_which(self, install: Install) -> None:
        install("paint-store", "paint", PLUGIN.format(scheme="pant"))
        with pytest.raises(PluginError, match="no provider for 'paint'; what it describes: 'other', 'pant'"):
            registry.open_provider("paint://", {})
