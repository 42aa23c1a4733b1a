"""``wardkey kafka``: the audit log in Kafka, a topic per tenant. ``wardkey up`` starts the publisher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._context import Context, pass_context
from ._output import UNREACHABLE, CliError, details, emit, fail, note, table

if TYPE_CHECKING:
    from ..publisher.config import Configuration
    from ..publisher.topics import Topic

__all__ = ["kafka", "make_topics"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_COLUMNS = ("tenant", "topic", "published", "behind", "last_at")


@click.group()
def kafka() -> None:
    """Publish the audit log to Kafka, a topic per tenant.

    What is sealed is published, byte for byte, with the checkpoints that vouch for it; sealed values stay
    sealed. Each event comes at least once, in order; while Kafka is away the log keeps everything.
    """


@kafka.command("use")
@click.argument("servers", metavar="HOST:PORT[,...]")
@click.option("--config", metavar="FILE", type=_FILE, help="Properties of librdkafka, such as credentials.")
@click.option("--replication", type=int, default=-1, help="Of new topics (default: as the cluster has it).")
@click.option(
    "--topic-config", "topic", metavar="NAME=VALUE", multiple=True, help="Of new topics: retention.ms=-1"
)
@pass_context
def use(
    context: Context, servers: str, config: Path | None, replication: int, topic: tuple[str, ...]
) -> None:
    """Publish to the Kafka cluster at HOST:PORT.

    FILE has lines name=value: security.protocol, sasl.mechanism, sasl.username, sasl.password and so on. It
    is copied to where only the publisher can read it. A running publisher uses it at once.
    """
    from ..publisher.broker import Broker
    from ..publisher.config import Configuration, parse_properties

    properties = parse_properties(config.read_text()) if config else {}
    configuration = Configuration(servers, replication, properties, parse_properties("\n".join(topic)))
    Broker(configuration).close()  # are these properties? The cluster itself is not asked
    context.home.make_directories()
    cluster = context.cluster
    cluster.publisher.configure(configuration)
    started = cluster.restart_publisher()
    facts = _shown(configuration) | {"started": started}
    then = "publisher started" if started else "start the publisher: wardkey up"
    emit(context, facts, lambda: click.echo(f"the audit log is published to {servers}\n{then}"))


@kafka.command("show")
@pass_context
def show(context: Context) -> None:
    """Show how Kafka is configured.

    Of properties only the names: their values may be credentials.
    """
    facts = _shown(_configuration(context))
    emit(context, facts, lambda: details(facts))


@kafka.command("off")
@pass_context
def off(context: Context) -> None:
    """Publish no more.

    Topics stay, and how far each has come: after the next `wardkey kafka use` it goes on from there.
    """
    publisher = context.cluster.publisher
    was = publisher.configured
    if was:
        publisher.configure(None)
        context.cluster.restart_publisher()
    text = "publishing is off" if was else "Kafka was not configured"
    emit(context, {"configured": False, "was_configured": was}, lambda: click.echo(text))


@kafka.command("status")
@pass_context
def status(context: Context) -> int:
    """Say how far each topic has come, and what is wrong. Exit code 3: no publisher is at work."""
    from ..publisher import topics
    from ..publisher.supervisor import is_at_work

    with context.connect(autocommit=True) as connection:
        connection.execute("set search_path = pg_catalog, pg_temp")
        at_work = is_at_work(connection)
        rows = [_progress(topic) for topic in topics.every(connection)]
    status = context.cluster.publisher.status() if context.dsn is None else None
    facts = {"at_work": at_work, "trouble": (status or {}).get("trouble"), "topics": rows}
    emit(context, facts, lambda: _show_status(facts))
    return 0 if at_work else UNREACHABLE


def _progress(topic: Topic) -> dict[str, Any]:
    return {
        "tenant": topic.slug or topic.tenant,
        "topic": topic.name,
        "published": topic.mark.position,
        "behind": topic.behind,
        "checkpoints_behind": topic.due > topic.mark.checkpoint_size,
        "last_at": topic.at,
        "failures": topic.failures,
        "trouble": topic.trouble,
    }


def _show_status(facts: dict[str, Any]) -> None:
    click.echo(f"publisher: {'at work' if facts['at_work'] else 'not at work'}")
    if facts["trouble"]:
        click.echo(f"trouble: {facts['trouble']}")
    table(facts["topics"], _COLUMNS, empty="no topics yet")
    for topic in facts["topics"]:
        if topic["trouble"]:
            where = f"{topic['topic']} at position {topic['published']}"
            click.echo(f"{where}: failed {topic['failures']} times, {topic['trouble']}")


@kafka.command("run")
@click.option("--status", "status_file", metavar="FILE", help="Where to tell how it is.")
@pass_context
def run(context: Context, status_file: str | None) -> int:
    """Work in the foreground until SIGTERM or Ctrl-C.

    For a server of your own; what `wardkey kafka use` wrote into the home says where Kafka is. One publisher
    works for a database; a second one waits.
    """
    from ..publisher.__main__ import SERVICE

    arguments = ["--dsn", context.admin_dsn]
    arguments += ["--config", str(context.cluster.publisher.configuration_file)]
    if status_file:
        arguments += ["--status", status_file]
    sys.stdout.flush()
    return SERVICE.main(arguments)


@kafka.command("acls")
@click.option("--tenant", "slug", metavar="SLUG", help="For this tenant's reader only.")
@click.option(
    "--principal",
    metavar="TYPE:NAME",
    help="Of the publisher (User:wardkey-publisher), or with --tenant of its reader (User:audit.SLUG).",
)
@pass_context
def acls(context: Context, slug: str | None, principal: str | None) -> None:
    """Print the commands that set a cluster's ACLs.

    The publisher may make and write topics that begin with audit., and no more; each tenant's principal may
    read its own topic, in consumer groups whose names begin with the topic's and a hyphen.
    """
    from ..publisher import acls, topics

    servers = _configuration(context).servers
    with context.connect(autocommit=True) as connection:
        connection.execute("set search_path = pg_catalog, pg_temp")
        chosen = [topic for topic in topics.every(connection) if topic.slug and slug in (None, topic.slug)]
    if slug and not chosen:
        fail(f"there is no topic of tenant {slug}", "the publisher makes it: wardkey kafka status")
    commands = [] if slug else list(acls.of_publisher(servers, principal or acls.PUBLISHER))
    for topic in chosen:
        commands += acls.of_tenant(servers, topic.name, principal if slug else None)
    emit(context, commands, lambda: click.echo("\n".join(commands)))


@kafka.command("schema")
def schema() -> None:
    """Print the JSON Schema of the messages."""
    from importlib.resources import files

    click.echo((files("wardkey.publisher") / "event.schema.json").read_text(), nl=False)


def make_topics(context: Context, tenants: list[dict[str, Any]]) -> None:
    """Make the topics of new tenants, where Kafka is configured. What cannot be made the publisher will."""
    import psycopg

    from ..errors import WardError, from_psycopg
    from ..publisher import topics
    from ..publisher.broker import Broker

    publisher = context.cluster.publisher
    if context.dsn is not None or not publisher.configured:
        return
    try:
        broker = Broker(_configuration(context))
        with context.connect(autocommit=True) as connection:
            connection.execute("set search_path = pg_catalog, pg_temp")
            connection.execute("set lock_timeout = '15s'")
            cluster = broker.cluster(5)
            for row in tenants:
                row["topic"] = topics.claim(connection, cluster, row["id"], broker.make)[0]
                note(context, f"{row['slug']}: topic {row['topic']}")
    except (WardError, psycopg.Error, CliError) as error:
        why = from_psycopg(error) if isinstance(error, psycopg.Error) else error
        note(context, f"no topic yet, the publisher will make it: {why.message}")


def _configuration(context: Context) -> Configuration:
    configuration = context.cluster.publisher.configuration()
    if configuration is None:
        raise CliError("Kafka is not configured", "wardkey kafka use HOST:PORT")
    return configuration


def _shown(configuration: Configuration) -> dict[str, Any]:
    return {
        "servers": configuration.servers,
        "replication": configuration.replication,
        "properties": sorted(configuration.properties),
        "topic_config": [f"{name}={value}" for name, value in configuration.topic.items()],
    }
