"""Choose the packages of a minimal Debian system: Essential, Priority required, and apt, with what they depend on.

A depth-first search with unit propagation: dependencies that leave no choice are followed first, so that a choice
made later sees what is selected anyway and picks it. A choice is tried in the order the dependency writes it; a
virtual package's providers by priority, then name. A selection that breaks or conflicts with itself is undone and
the next one tried. Recommends are not followed, as in debootstrap's minbase. Pure: an `Index` in, packages out.
Debian Policy chapter 7, deb-control(5)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from debian.deb822 import PkgRelation
from debian.debian_support import Version

from naru.errors import NotFound, Unsupported
from naru.library.debian_index import Index, Package

# Where init-system-helpers asks for either, this one says "the root was made merged", as ours is; the other would
# bring perl to merge it afterwards.
PREFERRED = frozenset({"usr-is-merged"})
_PRIORITIES = ("required", "important", "standard", "optional", "extra")


@dataclass(frozen=True, slots=True)
class Relation:
    """One alternative of a dependency: a name, perhaps with a version constraint."""

    name: str
    operator: str = ""
    version: str = ""

    def accepts(self, version: Version) -> bool:
        """Whether a package of `version` is in the constraint."""
        if not self.operator:
            return True
        wanted = Version(self.version)
        return {
            "<<": version < wanted,
            "<=": version <= wanted,
            "=": version == wanted,
            ">=": version >= wanted,
            ">>": version > wanted,
        }[self.operator]

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name


Group = tuple[Relation, ...]
Selection = dict[str, Package]


EXTRA = ("apt",)


def resolve(index: Index, extra: Sequence[str] = EXTRA) -> list[Package]:
    """Return the smallest sensible set that holds every Essential and required package and `extra`, by name.

    Unsupported: the dependencies cannot be met together, naming the one where the search ended.
    """
    seeds = sorted({name for name in index.seeds if index.newest(name).is_base} | set(extra))
    solver = _Solver(index)
    selection = solver.solve({name: index.newest(name) for name in seeds})
    if selection is None:
        raise Unsupported(f"cannot resolve the base packages: {solver.failure}")
    return [selection[name] for name in sorted(selection)]


def relations(package: Package, *fields: str) -> Iterator[Group]:
    """Yield the and-ed groups of alternatives in `fields` of `package`."""
    for field in fields:
        text = package.fields.get(field, "")
        for group in PkgRelation.parse_relations(text) if text else ():
            yield tuple(_relation(item) for item in group)


def _relation(item: PkgRelation.ParsedRelation) -> Relation:
    operator, version = item["version"] or ("", "")
    # "<" and ">" are old spellings of "<=" and ">=" (Debian Policy 7.1).
    return Relation(item["name"], {"<": "<=", ">": ">="}.get(operator, operator), version)


def is_asked_for(package: Package) -> bool:
    """Whether a base system has `package` for its own sake, not for another's."""
    return package.is_base or package.name in EXTRA


class _Solver:
    def __init__(self, index: Index) -> None:
        self._index = index
        self._groups: dict[str, list[Group]] = {}
        self.failure = "nothing was tried"

    def solve(self, selection: Selection) -> Selection | None:
        """Return `selection` grown until nothing is missing, or None when that cannot be."""
        open_groups = self._propagate(selection)
        if open_groups is None or (clash := self._clash(selection.values())):
            self.failure = self.failure if open_groups is None else clash
            return None
        if not open_groups:
            return selection
        for candidate in self._candidates(open_groups[0]):
            found = self.solve({**selection, candidate.name: candidate})
            if found is not None:
                return found
        return None

    def _propagate(self, selection: Selection) -> list[Group] | None:
        """Follow every group with one candidate, in place; return those with a choice, None if one has none."""
        pending = list(selection.values())
        choices: list[Group] = []
        while pending:
            package = pending.pop()
            for group in self._dependencies(package):
                candidates = self._candidates(group)
                if self._is_met(group, selection):
                    continue
                if not candidates:
                    self.failure = f"{package.name} needs {' | '.join(map(str, group))}, which is not there"
                    return None
                if len(candidates) > 1:
                    choices.append(group)
                elif candidates[0].name in selection:
                    self.failure = f"{package.name} needs {group[0]}, which excludes the selected {candidates[0].name}"
                    return None
                else:
                    selection[candidates[0].name] = candidates[0]
                    pending.append(candidates[0])
        return [group for group in choices if not self._is_met(group, selection)]

    def _dependencies(self, package: Package) -> list[Group]:
        key = repr(package)
        if key not in self._groups:
            self._groups[key] = list(relations(package, "Pre-Depends", "Depends"))
        return self._groups[key]

    def _candidates(self, group: Group) -> list[Package]:
        """Packages that would meet `group`, best first, each name once."""
        found: dict[str, Package] = {}
        for relation in group:
            for package in self._index.versions(relation.name):
                if relation.accepts(package.version):
                    found.setdefault(package.name, package)
            providers = [self._index.newest(name) for name in self._index.providers(relation.name)]
            for package in sorted(providers, key=_preference):
                if _provides(package, relation):
                    found.setdefault(package.name, package)
        return sorted(found.values(), key=lambda package: package.name not in PREFERRED)

    def _is_met(self, group: Group, selection: Selection) -> bool:
        return any(_matches(selection.values(), relation) for relation in group)

    def _clash(self, selected: Iterable[Package]) -> str:
        """Return who excludes whom among `selected`, or nothing."""
        packages = list(selected)
        for package in packages:
            others = [other for other in packages if other is not package]
            for group in relations(package, "Conflicts", "Breaks"):
                if other := _matches(others, group[0]):
                    return f"{package.name} excludes {other.name}"
        return ""


def _matches(packages: Iterable[Package], relation: Relation) -> Package | None:
    for package in packages:
        if (package.name == relation.name and relation.accepts(package.version)) or _provides(package, relation):
            return package
    return None


def _provides(package: Package, relation: Relation) -> bool:
    """A constrained relation is met only by a Provides that states its version (Debian Policy 7.5)."""
    if relation.name not in package.fields.get("Provides", ""):
        return False
    for (provided,) in relations(package, "Provides"):
        if provided.name != relation.name:
            continue
        if not relation.operator or (provided.version and relation.accepts(Version(provided.version))):
            return True
    return False


def _preference(package: Package) -> tuple[int, str]:
    priority = package.priority
    return (_PRIORITIES.index(priority) if priority in _PRIORITIES else len(_PRIORITIES), package.name)


def install_order(packages: Sequence[Package], first: str) -> list[Package]:
    """Return `packages` with `first` leading and each after what it pre-depends on; ties by name."""
    by_name = {package.name: package for package in packages}
    if first not in by_name:
        raise NotFound(f"package {first}: not among the base packages")
    order: dict[str, Package] = {first: by_name[first]}

    def visit(package: Package, path: frozenset[str]) -> None:
        if package.name in order or package.name in path:
            return
        for group in relations(package, "Pre-Depends"):
            for needed in (by_name[item.name] for item in group if item.name in by_name):
                visit(needed, path | {package.name})
        order[package.name] = package

    for package in packages:
        visit(package, frozenset())
    return list(order.values())
