"""The models of a folder and their versions: notices, loads and swaps them between requests."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from serving import folders, routing
from serving.errors import RequestError
from serving.folders import Fingerprint
from serving.routing import Routes
from serving.saved_model import Model

_LOG = logging.getLogger("serving")
# States of a version, as TF Serving names them.
AVAILABLE, LOADING, FAILED = "AVAILABLE", "LOADING", "END"
_NOT_FOUND, _UNAVAILABLE = 404, 503
_RETRY_SECONDS = 5
_MAX_REASON = 500  # characters


@dataclass(frozen=True)
class Status:
    """The state of a version.

    Attributes:
      version: its number.
      state: one of AVAILABLE, LOADING and FAILED.
      message: why it failed; empty otherwise.
    """

    version: int
    state: str
    message: str = ""


@dataclass(frozen=True)
class _View:
    """What requests see of a model. It is replaced as a whole, because requests run in another thread."""

    loaded: Mapping[int, Model] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)  # version -> reason
    loading: int | None = None
    routes: Routes = field(default_factory=Routes)

    @property
    def stable(self) -> int | None:
        return self.routes.stable_of(self.loaded)

    @property
    def is_settled(self) -> bool:
        """Whether a version was loaded or failed, or none is to answer."""
        return bool(self.loaded or self.failed) or self.routes.stable == routing.NO_VERSION


@dataclass
class _Looks:
    """What earlier looks at the folder of a model have found."""

    seen: dict[int, Fingerprint] = field(default_factory=dict)  # files of versions at the last look
    # Files of versions when they were loaded, or failed.
    tried: dict[int, Fingerprint] = field(default_factory=dict)
    problem: str = ""  # of the routes
    mismatch: str = ""  # between the routes and the version that answers


class Repository:
    """Serves the complete versions of all models below a folder.

    The version that answers is loaded, and so are a canary, a shadow, and the version that answered before. A
    new version is loaded and warmed up while the old one answers. It is loaded after its files have stayed
    the same from one look to the next, so that a version that is being copied is left alone. A version that
    cannot be loaded leaves the old one in place, and is tried again when its files change. Signatures that
    are rarely asked are warmed up after the swap.

    `refresh` is called in one thread; all other methods may be called in another one at the same time.

    Args:
      root: folder with one folder of versions for each model.
      on_change: called by `refresh` with the name of a model whose versions or routes have changed.
    """

    def __init__(self, root: Path, on_change: Callable[[str], None] = lambda name: None) -> None:
        self._root = root
        self._on_change = on_change
        self._views: dict[str, _View] = {}  # replaced as a whole
        self._looks: dict[str, _Looks] = {}
        self._to_warm_up: list[Model] = []  # loaded by this look
        self._looked = False
        self._complete = False

    def names(self) -> list[str]:
        """Returns the names of the models that answer."""
        return sorted(name for name, view in self._views.items() if view.stable is not None)

    def is_ready(self) -> bool:
        """Returns whether a model answers, and all that were found at the start were loaded or failed."""
        return self._complete and any(view.stable is not None for view in self._views.values())

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Model:
        """Returns the loaded version that answers a request.

        Args:
          name: name of the model.
          version: number of a version; None lets the routes decide.
          label: `stable` or `canary`, instead of a number.

        Raises:
          RequestError: there is no such model or version, or it is not loaded yet.
        """
        view = self._views.get(name, _View())
        routes = view.routes
        if label == routing.STABLE:
            version = view.stable
        elif label == routing.CANARY and routes.canary is not None:
            version = routes.canary
        elif label is not None:
            raise RequestError(_NOT_FOUND, f"Unrecognized servable version label: {label}")
        elif version is None:
            takes_canary = routes.canary in view.loaded and random.uniform(0, 100) < routes.percent
            version = routes.canary if takes_canary else view.stable
        if version is not None and version in view.loaded:
            return view.loaded[version]
        if not view.is_settled and (name in self._views or not self._looked):
            raise RequestError(_UNAVAILABLE, f"model {name} is not loaded yet", retry_after=_RETRY_SECONDS)
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise RequestError(_NOT_FOUND, f"Servable not found for request: {wanted}")

    def stable(self, name: str) -> Model | None:
        """Returns the version that answers requests that name no version, apart from a canary's share."""
        view = self._views.get(name, _View())
        stable = view.stable
        return view.loaded[stable] if stable is not None else None

    def shadow(self, name: str) -> Model | None:
        """Returns the version that computes the requests to a model without answering them."""
        view = self._views.get(name, _View())
        return view.loaded.get(view.routes.shadow) if view.routes.shadow is not None else None

    def status(self, name: str, version: int | None = None) -> list[Status]:
        """Returns the state of all versions that were loaded or tried, or of one of them, the newest first.

        Raises:
          RequestError: there is no such model or version.
        """
        if name not in self._views:
            raise RequestError(_NOT_FOUND, f"Could not find any versions of model {name}")
        view = self._views[name]
        found = {number: Status(number, FAILED, reason) for number, reason in view.failed.items()}
        if view.loading is not None:
            found[view.loading] = Status(view.loading, LOADING)
        # A loaded version whose files have changed may have failed or be loading: it still answers.
        for number in view.loaded:
            found[number] = Status(number, AVAILABLE, view.failed.get(number, ""))
        if version is not None and version not in found:
            raise RequestError(_NOT_FOUND, f"Could not find version {version} of model {name}")
        return [found[number] for number in sorted(found, reverse=True) if version in (None, number)]

    def refresh(self) -> None:
        """Looks for new and removed versions and changed routes, and loads what is needed.

        Raises:
          OSError: the folder cannot be read; everything stays as it was.
        """
        models = folders.models(self._root)
        if not models and not self._looked:
            _LOG.warning("%s has no pushed model yet; the server waits for one", self._root)
        for name in self._views.keys() - models.keys():
            _LOG.warning("model %s: its versions are gone", name)
            self._views = {other: view for other, view in self._views.items() if other != name}
            del self._looks[name]
            self._on_change(name)
        unloaded = False
        for name, folder in models.items():
            try:
                unloaded |= self._refresh_model(name, folder)
            except OSError as error:  # such as files that are removed at this moment
                _LOG.warning("model %s: %s; its versions stay as they were", name, error)
        if unloaded:
            # The objects of a SavedModel refer to each other, and some of them hold much memory.
            gc.collect()
        self._looked = True
        if self._views and all(view.is_settled for view in self._views.values()):
            self._complete = True
        while self._to_warm_up:
            self._warm_up(self._to_warm_up.pop())

    def _change(self, name: str, view: _View) -> None:
        self._views = {**self._views, name: view}

    def _refresh_model(self, name: str, folder: Path) -> bool:
        """Refreshes a model; returns whether a version was unloaded."""
        before = self._views.get(name, _View())
        looks = self._looks.setdefault(name, _Looks())
        on_disk = folders.versions(folder)
        self._forget_removed(name, before, looks, on_disk)
        routes = self._read_routes(name, folder, before.routes, on_disk, looks)
        self._take(name, routes, before)
        if routes.stable is None:
            named = {routes.canary, routes.shadow}
            newest_first = sorted(on_disk.keys() - named, reverse=True) or sorted(on_disk, reverse=True)
            for version in newest_first:
                if self._ensure(name, looks, on_disk[version]):
                    break
        elif routes.stable in on_disk:
            self._ensure(name, looks, on_disk[routes.stable])
        self._take(name, routes, before)
        # The version that answers comes first, so that no other one stands in for it while they are loaded.
        for other in (routes.canary, routes.shadow, routes.previous):
            if other in on_disk:
                self._ensure(name, looks, on_disk[other])
        view = _without_unused(self._views[name], routes, on_disk)
        self._change(name, view)
        if (before.routes, dict(before.loaded)) != (view.routes, dict(view.loaded)):
            if before.loaded or view.loaded or routes.stable == routing.NO_VERSION:
                loaded = ", ".join(map(str, sorted(view.loaded))) or "none"
                _LOG.info("model %s: %s; loaded versions: %s", name, _says(view.stable), loaded)
            self._on_change(name)
        self._check_stable(name, routes, on_disk, looks)
        return not set(before.loaded.values()) <= set(view.loaded.values())

    def _take(self, name: str, routes: Routes, before: _View) -> None:
        """Lets routes hold, unless their version is not loaded: then the one that answered goes on."""
        view = self._views[name]
        if before.stable is None or routes.stable_of(view.loaded) is not None:
            self._change(name, replace(view, routes=routes))

    def _check_stable(self, name: str, routes: Routes, on_disk: Mapping[int, Path], looks: _Looks) -> None:
        """Logs an error if the version that is to answer is another one than the version that does."""
        view = self._views[name]
        wanted = (
            routes.stable if routes.stable is not None else routes.stable_of(on_disk)
        ) or routing.NO_VERSION
        is_settled = wanted not in on_disk or looks.tried.get(wanted) == looks.seen.get(wanted)
        mismatch = ""
        if wanted not in (routing.NO_VERSION, view.stable) and is_settled:
            mismatch = f"version {wanted} is to answer, but {_says(view.stable)}"
        if mismatch and mismatch != looks.mismatch:
            _LOG.error("model %s: %s", name, mismatch)
        looks.mismatch = mismatch

    def _forget_removed(self, name: str, view: _View, looks: _Looks, on_disk: Mapping[int, Path]) -> None:
        """Forgets versions whose files are gone, except for the one that answers if no other one can."""
        for known in (looks.seen, looks.tried):
            for version in known.keys() - on_disk.keys():
                del known[version]
        pinned = view.routes.stable
        loaded = {version: model for version, model in view.loaded.items() if version in (*on_disk, pinned)}
        failed = {version: reason for version, reason in view.failed.items() if version in on_disk}
        self._change(name, replace(view, loaded=loaded or view.loaded, failed=failed))

    def _read_routes(
        self, name: str, folder: Path, before: Routes, on_disk: Mapping[int, Path], looks: _Looks
    ) -> Routes:
        """Returns the routes of a model; those from before if the file cannot be used."""
        try:
            routes, problem = routing.read(folder), ""
        except routing.RoutingError as error:
            routes, problem = before, f"{error}; the routes stay as they were"
        missing = routes.versions() - on_disk.keys()
        if missing and not problem:
            listed = ", ".join(map(str, sorted(missing)))
            problem = f"{routing.FILE} names versions that are not there, or not complete: {listed}"
        if problem and problem != looks.problem:
            _LOG.error("model %s: %s", name, problem)
        looks.problem = problem
        if missing:
            view = self._views[name]
            reason = f"{routing.FILE} names this version, but it is not there, or not complete"
            reasons = dict.fromkeys(missing, reason)
            self._change(name, replace(view, failed={**view.failed, **reasons}))
        return routes

    def _ensure(self, name: str, looks: _Looks, path: Path) -> bool:
        """Loads a version whose files have settled, unless it is loaded already, or cannot be.

        Returns:
          Whether the version can be used.
        """
        version = int(path.name)
        files = folders.fingerprint(path)
        settled = looks.seen.get(version) == files
        looks.seen[version] = files
        view = self._views[name]
        # A version that was loaded may have been unloaded since, because nothing referred to it.
        is_known = looks.tried.get(version) == files and (version in view.loaded or version in view.failed)
        if settled and not is_known:
            looks.tried[version] = files
            self._load(name, path)
        return version in self._views[name].loaded

    def _load(self, name: str, path: Path) -> None:
        version = int(path.name)
        self._change(name, replace(self._views[name], loading=version))
        view = replace(self._views[name], loading=None)
        try:
            model = Model(path)
        except Exception as error:  # a damaged SavedModel raises exceptions of many types
            reason = " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
            _LOG.error("model %s: version %s cannot be loaded: %s", name, version, reason)
            self._change(name, replace(view, failed={**view.failed, version: reason}))
            return
        _LOG.info("model %s: version %s loaded in %.1f s", name, version, model.load_seconds)
        failed = {other: reason for other, reason in view.failed.items() if other != version}
        self._change(name, replace(view, loaded={**view.loaded, version: model}, failed=failed))
        self._to_warm_up.append(model)

    def _warm_up(self, model: Model) -> None:
        try:
            model.warm_up_others()
        except Exception as error:  # the signatures that predict answer nevertheless
            _LOG.warning("version %s of %s: %s", model.version, model.path.parent.name, error)


def _says(version: int | None) -> str:
    return "no version answers" if version is None else f"version {version} answers"


def _without_unused(view: _View, wanted: Routes, on_disk: Mapping[int, Path]) -> _View:
    """Leaves out versions that nothing refers to; requests that they compute are still answered.

    Args:
      view: the versions, and the routes that hold.
      wanted: the routes that will hold when their version is loaded.
      on_disk: the versions that are there.
    """
    stable, routes = view.stable, view.routes
    earlier = max(
        (version for version in view.loaded if stable is not None and version < stable), default=None
    )
    # The version to which a rollback returns.
    before = earlier if routes.previous in (None, stable) else routes.previous
    kept = {stable, routes.canary, routes.shadow, before}
    kept |= wanted.versions() | {wanted.previous}
    loaded = {
        version: model
        for version, model in view.loaded.items()
        if version in kept and (version in on_disk or version == stable)
    }
    return replace(view, loaded=loaded)
