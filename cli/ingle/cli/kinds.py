"""What `ingle image` and `ingle kernel` have in common: the commands for a kind of thing that is pulled or sent, has
names, and is kept until it is deleted."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from ingle.cli import completion
from ingle.cli.client import Call, Client, connect
from ingle.cli.jsonable import Shape, shape_of, to_json
from ingle.cli.lazy import App, examples
from ingle.cli.listing import Column, Filter, Format, Formatted, Listing, ListOptions, formatted_one
from ingle.cli.many import change_each
from ingle.cli.options import AsJson, DryRun, Refresh, Verbose
from ingle.cli.output import NAMELESS, ask_first, fields, print_json, say, tell
from ingle.cli.owners import another
from ingle.cli.progress import follow
from ingle.cli.quantities import format_age, format_size
from ingle.cli.spread import spread
from ingle.cli.stages import Stages

if TYPE_CHECKING:
    from ingle.v1.image_pb2 import Image
    from ingle.v1.kernel_pb2 import Kernel

_Item = TypeVar("_Item", bound="Image | Kernel")


@dataclass(frozen=True)
class Kind(Generic[_Item]):
    """One of the kinds. `noun` is its name in the command line and, with a capital, in the messages of its `contract`;
    `one` is an example that the catalog has."""

    noun: str
    contract: ModuleType
    one: str
    columns: Sequence[Column[_Item]]
    """Of a table, between ID and AGE."""
    details: Callable[[_Item], Iterable[tuple[str, str]]]
    """What `show` tells beside names, id, source and age."""
    taken_bytes: Callable[[_Item], int]
    """What deleting it frees."""
    names_go_alone: bool = False
    """Whether of one with several names `delete NAME` takes that alone."""

    def tell(self, item: _Item, *, json: bool) -> None:
        """Print one that has just come here."""
        if json:
            print_json(to_json(item))
        else:
            self._tell_all([item], json=False)

    def add_commands(self, app: App, *, lists: bool = True) -> None:
        """To `ingle image` or `ingle kernel`; without `lists`, all but `pull`, `list` and `prune`."""
        self._add_catalog(app)
        if lists:
            self._add_pull(app)
            self._add_list(app)
            self._add_prune(app)
        self._add_show(app)
        self._add_inspect(app)
        self._add_delete(app)

    def _add_catalog(self, app: App) -> None:
        noun = self.noun

        listing = Listing(
            message=getattr(self.contract, f"Catalog{self._noun}"),
            columns=(
                Column("NAME", lambda entry: entry.name),
                Column("HERE", lambda entry: "yes" if entry.present else "no"),
                Column("WHAT IT IS", lambda entry: entry.description),
            ),
            name=lambda entry: entry.name,
            filters={"name": Filter(lambda entry: [entry.name])},
        )

        @app.command(
            epilog=examples(f"ingle {noun} catalog", f"ingle {noun} catalog --filter 'name=debian*' -q"),
            help=f"What `{noun} pull` can bring.\n\nFilter: name.",
        )
        @spread(ListOptions)
        def catalog(options: ListOptions) -> None:
            chosen = listing.chosen(options)
            with connect() as client:
                entries = self._many(client.all(*self._messages(f"ListCatalog{self._nouns}")))
            chosen.show(entries)

    def _add_pull(self, app: App) -> None:
        noun, pullable = self.noun, completion.pullable(self.noun)

        @app.command(
            epilog=examples(f"ingle {noun} pull {self.one}", f"ingle {noun} pull --refresh {self.one}"),
            help="Bring one of the catalog; nothing happens when it is here already.",
        )
        def pull(
            name: Annotated[
                str,
                typer.Argument(
                    metavar="NAME",
                    help=f"Of the catalog, e.g. {self.one}; see ingle {noun} catalog.",
                    autocompletion=pullable,
                ),
            ],
            refresh: Refresh = False,
            verbose: Verbose = False,
            json: AsJson = False,
        ) -> None:
            with connect() as client, Stages(lines=verbose, steps=True) as stages:
                begun = self._ask(client, f"BeginPull{self._noun}", name=name, refresh=refresh)
                follow(client, begun.operation_id, stages)
                item = self._get(client, name)
            self.tell(item, json=json)

    def list_them(self, options: ListOptions) -> None:
        """`list`."""
        chosen = self._listing().chosen(options)
        with connect() as client:
            items = self._many(client.all(*self._messages(f"List{self._nouns}")))
        chosen.show(items)

    def prune(self, *, everything: bool, force: bool, dry_run: bool, json: bool) -> None:
        """`prune`."""
        method = f"Prune{self._nouns}"
        with connect() as client:
            if not force or dry_run:
                unused = self._many(self._ask(client, method, dry_run=True, all=everything))
                if dry_run:
                    self._tell_pruned(unused, "would free", json=json)
                    return
                if unused:
                    self._ask_before_pruning(unused, "--all " if everything else "")
            pruned = self._many(self._ask(client, method, all=everything))
        self._tell_pruned(pruned, "freed", json=json)

    def _add_list(self, app: App) -> None:
        noun = self.noun

        @app.command(
            name="list",
            epilog=examples(
                f"ingle {noun} list",
                f"ingle {noun} list --filter 'name=debian*'",
                f"ingle {noun} list --format '{{{{.id}}}} {{{{join .names \" \"}}}}'",
            ),
            help=f"{self._nouns} that are here.\n\nFilter: name.\n\nAlias: ls.",
        )
        @spread(ListOptions)
        def list_them(options: ListOptions) -> None:
            self.list_them(options)

    def _add_show(self, app: App) -> None:
        noun, names = self.noun, completion.names_of(self.noun)

        @app.command(
            epilog=examples(f"ingle {noun} show {self.one}", f"ingle {noun} show --format '{{{{.id}}}}' {self.one}"),
            help=f"Everything about one {noun}.",
        )
        def show(
            reference: Annotated[
                str,
                typer.Argument(
                    metavar=noun.upper(), help="Name, id, or a unique prefix of an id.", autocompletion=names
                ),
            ],
            format_: Format = "",
            json: AsJson = False,
        ) -> None:
            formatted = formatted_one(format_, self._shape, json=json)
            with connect() as client:
                found = self._get(client, reference)
            if formatted is not None:
                formatted.show_one(to_json(found))
                return
            created = f"{found.created_at.ToDatetime(UTC):%F %T} UTC"
            last = (("source", found.source), ("owner", another(found.owner)), ("created", created))
            say(fields((("names", " ".join(found.names)), ("id", found.id), *self.details(found), *last)))

    def _add_inspect(self, app: App) -> None:
        noun, names = self.noun, completion.names_of(self.noun)

        @app.command(
            epilog=examples(f"ingle {noun} inspect {self.one}"), help=f"Everything about {noun}s, as a list in JSON."
        )
        def inspect(
            references: Annotated[
                list[str],
                typer.Argument(
                    metavar=f"{noun.upper()}...", help="Names, ids or unique id prefixes.", autocompletion=names
                ),
            ],
            format_: Format = "",
            json: AsJson = False,
        ) -> None:
            formatted = Formatted("json" if json else format_ or "json", self._shape)
            with connect() as client:
                formatted.show_each(references, lambda reference: to_json(self._get(client, reference)))

    def _add_delete(self, app: App) -> None:
        noun, names = self.noun, completion.names_of(self.noun)
        alone = "Of several names of one, only the one that you say goes.\n\n" if self.names_go_alone else ""

        @app.command(
            epilog=examples(f"ingle {noun} delete {self.one}", f"ingle {noun} rm 3f2a 91bc"),
            help=(
                f"Delete {noun}s; refused while a VM uses them.\n\n{alone}"
                "Of one that other users have too your names go, and it stays for them.\n\nAlias: rm."
            ),
        )
        def delete(
            references: Annotated[
                list[str],
                typer.Argument(
                    metavar=f"{noun.upper()}...", help="Names, ids or unique id prefixes.", autocompletion=names
                ),
            ],
            json: AsJson = False,
        ) -> None:
            with connect() as client:

                def delete_one(which: str) -> Call[Any]:
                    item_id, _, name = which.partition(" ")
                    wish = {noun: item_id, **({"name": name} if name else {})}
                    return client.begin(*self._messages(f"Delete{self._noun}", **wish))

                typed = set(references)
                change_each(
                    references,
                    lambda reference: client.begin(*self._messages(f"Get{self._noun}", **{noun: reference})),
                    lambda found: self._which(self._one(found), typed),
                    delete_one,
                    "Deleting",
                    json=json,
                    note=_told_of_deletion,
                )

    def _which(self, item: _Item, typed: set[str]) -> str:
        """The id, and the next of its names that was typed where that may go alone."""
        name = next((name for name in item.names if name in typed), "") if self.names_go_alone else ""
        typed.discard(name)
        return f"{item.id} {name}".strip()

    def _add_prune(self, app: App) -> None:
        noun = self.noun

        @app.command(
            epilog=examples(
                f"ingle {noun} prune --dry-run",
                f"ingle {noun} prune",
                f"ingle {noun} prune --all -f  # named ones, too",
            ),
            help=f"Delete {noun}s without a name that no VM uses: their names were given to newer ones.",
        )
        def prune(
            everything: Annotated[
                bool, typer.Option("--all", "-a", help=f"Named {noun}s as well: whatever no VM uses.")
            ] = False,
            force: Annotated[bool, typer.Option("--force", "-f", help="Don't ask.")] = False,
            dry_run: DryRun = False,
            json: AsJson = False,
        ) -> None:
            self.prune(everything=everything, force=force, dry_run=dry_run, json=json)

    def _ask_before_pruning(self, unused: Sequence[_Item], option: str) -> None:
        ask_first(
            f"Delete {len(unused)} {self.noun}{'s' if len(unused) > 1 else ''} "
            f"({', '.join(' '.join(item.names) or item.id[:12] for item in unused)}), "
            f"{format_size(sum(map(self.taken_bytes, unused)))}?",
            f"ingle {self.noun} prune {option}--force",
        )

    def _tell_pruned(self, pruned: Sequence[_Item], what: str, *, json: bool) -> None:
        self._tell_all(pruned, json=json)
        if not json:
            tell(f"{what} {format_size(sum(map(self.taken_bytes, pruned)))}")

    @property
    def _noun(self) -> str:
        return self.noun.capitalize()

    @property
    def _nouns(self) -> str:
        return f"{self._noun}s"

    def _messages(self, method: str, **fields: object) -> tuple[Any, Any]:
        """A request of `method`, and what answers it."""
        return getattr(self.contract, f"{method}Request")(**fields), getattr(self.contract, f"{method}Response")

    def _ask(self, client: Client, method: str, **fields: object) -> Any:
        return client.call(*self._messages(method, **fields))

    def _get(self, client: Client, reference: str) -> _Item:
        return self._one(self._ask(client, f"Get{self._noun}", **{self.noun: reference}))

    def _one(self, response: Any) -> _Item:
        item: _Item = getattr(response, self.noun)
        return item

    def _many(self, response: Any) -> Sequence[Any]:
        items: Sequence[Any] = getattr(response, f"{self.noun}s")
        return items

    def _tell_all(self, items: Sequence[_Item], *, json: bool) -> None:
        self._listing().chosen(ListOptions(json=json)).show(items)

    def _listing(self) -> Listing[_Item]:
        return Listing(
            message=getattr(self.contract, self._noun),
            columns=(
                Column("NAME", lambda item: " ".join(item.names) or NAMELESS),
                Column("ID", lambda item: item.id, is_id=True),
                *self.columns,
                Column("AGE", lambda item: format_age(item.created_at.ToDatetime(UTC))),
            ),
            name=lambda item: item.names[0] if item.names else item.id,
            filters={"name": Filter(lambda item: item.names)},
        )

    def _shape(self) -> Shape:
        return shape_of(getattr(self.contract, self._noun).DESCRIPTOR)


def _told_of_deletion(done: Any) -> str:
    if getattr(done, "untagged", False):
        return "the name has gone; the image stays, since it has others"
    return "it stays for others, who have it too" if done.stays else ""
