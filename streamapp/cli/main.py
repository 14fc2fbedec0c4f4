"""`streamapp`: finds the command, imports only that one, and says what went wrong in one sentence with its fix."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from streamapp import __version__
from streamapp.core.errors import InvariantBroken, StreamappError

#: Every command by theme, with its one line of help; a command's module is imported when it is called, not before.
THEMES: Mapping[str, Mapping[str, str]] = {
    "See it": {
        "demo": "Run everything on this machine and watch it decide.",
    },
    "Run it": {
        "worker": "Decide events from a broker until told to stop.",
        "broker": "Run an in-memory broker for trying things out.",
        "topics": "Create and check the topics of a pipeline.",
        "state": "Look into the state that workers keep, check its log, start over.",
        "doctor": "Check broker, topics, model and settings, and say how to mend them.",
        "config": "Show and check settings and pipeline files.",
    },
    "Feed it and read it": {
        "generate": "Write generated events as JSON lines.",
        "produce": "Send events from JSON lines to the events topic.",
        "consume": "Read verdicts as they come.",
        "lists": "Add, remove, show and import who or what is denied or allowed.",
        "profiles": "Load, refresh and show the user features that workers read.",
        "score": "Decide events from JSON lines without a broker.",
        "trace": "Show how one event is decided, stage by stage.",
        "replay": "Decide what was decided before again, and tell what differs.",
    },
    "Models and contracts": {
        "train": "Train a pipeline's model from labelled events.",
        "schema": "Export and check the schemas that producers and consumers rely on.",
    },
}
COMMANDS: Mapping[str, str] = {name: line for commands in THEMES.values() for name, line in commands.items()}

EXIT_WRONG = 2  #      something the caller can put right: settings, files, the broker's address
EXIT_BROKEN = 70  #    our own fault (EX_SOFTWARE)
EXIT_STOPPED = 130  #  Ctrl-C


class Failure(click.ClickException):
    """One of our own failures as a person should see it."""

    def __init__(self, failure: StreamappError) -> None:
        super().__init__(failure.problem)
        self.fix = failure.fix
        self.exit_code = EXIT_BROKEN if isinstance(failure, InvariantBroken) else EXIT_WRONG

    def show(self, file: Any = None) -> None:
        """Writes the problem in red and the fix below it, on stderr."""
        click.secho(f"{as_sentence(self.message)}", fg="red", err=True, file=file)
        if self.fix:
            click.echo(f"Fix: {as_sentence(self.fix)}", err=True, file=file)


def as_sentence(text: str) -> str:
    """Gives `text` as a sentence; what it begins with stays as it is where it is no word: a path, a setting, a command to be typed."""
    text = text.strip()
    first = text.split(maxsplit=1)[0].rstrip(",;:.?!") if text else ""
    if first not in ("streamapp", "pip") and first.replace("-", "").replace("'", "").isalpha():
        text = text[:1].upper() + text[1:]
    return text + ("" if text.endswith((".", "?", "!", ":", "`")) else ".")


class Program(click.Group):
    """The group of all commands; each lives in the module of its name."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Gives the names in the order of THEMES."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Gives the command after importing its module; None for an unknown name."""
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"streamapp.cli.{name}").command
        return command

    def resolve_command(self, context: click.Context, arguments: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; an unknown name is answered with the nearest known one."""
        if arguments and arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(arguments[0], COMMANDS, 1)
            raise click.UsageError(f"No command {arguments[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""), context)
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands by theme, without importing them."""
        width = max(map(len, COMMANDS))
        for theme, commands in THEMES.items():
            with formatter.section(theme):
                formatter.write_dl([(name.ljust(width), line) for name, line in commands.items()])

    def invoke(self, context: click.Context) -> Any:
        """Runs the command; our failures become sentences, Ctrl-C ends without a trace."""
        try:
            return super().invoke(context)
        except StreamappError as failure:
            raise Failure(failure) from failure
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            raise click.exceptions.Exit(EXIT_STOPPED) from None


@click.command(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with `streamapp demo`; every command tells its options and examples with --help.",
)
@click.version_option(__version__, "-V", "--version", prog_name="streamapp")
def program() -> None:
    """One verdict per event, with its reasons: a decision engine on an event bus."""
    # Libraries log what we say better ourselves; the worker sets up its own log.
    logging.getLogger().addHandler(logging.NullHandler())


def main() -> None:
    """The entry point of the `streamapp` script."""
    # A reader that went away (`| head`) is no failure of ours; click ends quietly on a broken pipe.
    sys.exit(program(prog_name="streamapp"))


if __name__ == "__main__":
    main()
