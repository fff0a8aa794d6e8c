"""Find the last event ID of a request, and leave it out of a target."""

from urllib.parse import unquote_plus

from multidict import CIMultiDict, CIMultiDictProxy, istr

from service.last_event_id import FIELD, PARAMETERS, choose_last_event_id

_FIELD = istr(FIELD)


def read_last_event_id(headers: CIMultiDict[str] | CIMultiDictProxy[str], target: str) -> str:
    """Return the last event ID of a request, empty if it has none."""
    return choose_last_event_id(headers.getall(_FIELD, ()), target.partition("?")[2])


def without_last_event_id(target: str) -> str:
    """Return `target` without the last event ID in its query, otherwise unchanged."""
    path, mark, query = target.partition("?")
    kept = [parameter for parameter in query.split("&") if unquote_plus(parameter.partition("=")[0]) not in PARAMETERS]
    return f"{path}{mark}{'&'.join(kept)}" if kept else path
