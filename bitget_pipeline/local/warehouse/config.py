"""
What the embedded warehouse is started with, and the files chDB reads it from.

From the caller of `serve` (the command line, `up`, tests) to `engine.py`. The folder holds:
`engine/` (chDB's own data path), `warehouse.lock` (who owns it), `engine.xml` and `users.xml` (written at every start).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

# What the one user may do. Everything that reaches beyond the data folder (READ or WRITE ON FILE, URL, S3, REMOTE, ...;
# TABLE ENGINE ON File; BACKUP; SYSTEM SHUTDOWN) is left out, and the engine itself then refuses it with code 497: whoever
# can reach the port must not gain the files of the account that runs the server. Measured with chdb-core 26.9: grants in
# a users_config are honoured. What they do not cover is refused in `statements.py`.
GRANTS = (
    "SHOW, SELECT, INSERT, ALTER, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, KILL QUERY, CHECK, dictGet, "
    "INTROSPECTION, SYSTEM MERGES, SYSTEM TTL MERGES, SYSTEM FLUSH, SYSTEM DROP CACHE, SYSTEM VIEWS, "
    "SYSTEM RELOAD DICTIONARY"
)


@dataclass(frozen=True)
class WarehouseConfig:
    """How the embedded warehouse runs. `password` "" means that none is asked for; `threads` bound statements at a time."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 0
    user: str = "default"
    password: str = field(default="", repr=False)
    threads: int = 64
    """Statements that run at the same time; further ones wait in line."""
    max_memory_mb: int = 0
    """Memory of the whole engine in MiB; 0 lets the engine decide (90 % of the machine)."""
    query_log: bool = False
    """Keep system.query_log (and part_log): useful for a look inside, costs disk and a little time."""
    stop_within: float = 10.0
    """Seconds that running statements get to finish when the server stops; then they are killed."""
    max_sessions: int = 500
    """Sessions kept open at a time; the longest idle one goes first."""

    @property
    def engine_path(self) -> Path:
        """chDB's data path."""
        return self.data / "engine"

    @property
    def lock_path(self) -> Path:
        """The file whose lock says that a process owns this folder."""
        return self.data / "warehouse.lock"

    @property
    def engine_xml(self) -> Path:
        """The engine's configuration, written by `write_files`."""
        return self.data / "engine.xml"

    @property
    def users_xml(self) -> Path:
        """The engine's only user and what it may do, written by `write_files`."""
        return self.data / "users.xml"

    @property
    def connection_string(self) -> str:
        """What chDB is opened with."""
        return f"{self.engine_path}?config-file={self.engine_xml}"


def write_files(config: WarehouseConfig) -> None:
    """Write the engine's two configuration files. Raises OSError."""
    config.engine_xml.write_text(_engine_xml(config), encoding="utf-8")
    config.users_xml.write_text(_USERS_XML.format(grants=GRANTS), encoding="utf-8")


def _engine_xml(config: WarehouseConfig) -> str:
    memory = f"<max_server_memory_usage>{config.max_memory_mb << 20}</max_server_memory_usage>"
    return _ENGINE_XML.format(
        users=escape(str(config.users_xml)),
        memory=memory if config.max_memory_mb else "",
        logs=_LOGS_XML if config.query_log else "",
    )


_ENGINE_XML = """<clickhouse>
  <users_config>{users}</users_config>
  <mark_cache_size>134217728</mark_cache_size>
  <remote_url_allow_hosts/>
  {memory}
  {logs}
</clickhouse>
"""

_LOGS_XML = """<query_log><database>system</database><table>query_log</table>
    <flush_interval_milliseconds>1000</flush_interval_milliseconds></query_log>
  <part_log><database>system</database><table>part_log</table>
    <flush_interval_milliseconds>1000</flush_interval_milliseconds></part_log>"""

_USERS_XML = """<clickhouse>
  <profiles><default><session_timezone>UTC</session_timezone></default></profiles>
  <users>
    <default>
      <password/>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants><query>GRANT {grants} ON *.*</query></grants>
    </default>
  </users>
  <quotas><default/></quotas>
</clickhouse>
"""
