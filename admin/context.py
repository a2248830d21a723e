"""What every endpoint needs: the services, who is asking, and the log of actions."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from litestar import Request
from litestar.datastructures import State

from admin.answers import of_failure
from admin.auth import Authentication, Caller
from admin.balancing_ports import Management
from admin.key_ports import (
    BalancesService,
    BalanceSyncService,
    CredentialsService,
    Explainer,
    KeyPoolService,
    KeyStatisticsService,
    KeyTestsService,
    LiveLogService,
    PoolGroupsService,
)
from admin.ports import (
    ActionsService,
    RoutesService,
    SettingsService,
    StatisticsService,
    Stream,
    VersionsService,
    WorkersService,
)
from admin.token_ports import CleanupService, LedgerExportService, LedgerQueue, QuotaLogsService, TokensService

log = logging.getLogger("relaygate")

AdminRequest = Request[Any, Any, State]

DONE = "done"
FAILED = "failed"


class KeyServices(NamedTuple):
    """All that is about keys."""

    keys: CredentialsService
    groups: PoolGroupsService
    pool: KeyPoolService
    statistics: KeyStatisticsService
    tests: KeyTestsService
    balances: BalancesService
    sync: BalanceSyncService
    live_log: LiveLogService
    explainer: Explainer


class TokenServices(NamedTuple):
    """All that is about access tokens."""

    tokens: TokensService
    logs: QuotaLogsService
    export: LedgerExportService
    ledger: LedgerQueue
    cleanup: CleanupService


class Services(NamedTuple):
    """The SQL side, and what Redis tells of the workers."""

    routes: RoutesService
    versions: VersionsService
    settings: SettingsService
    actions: ActionsService
    statistics: StatisticsService
    workers: WorkersService
    stream: Stream
    about_keys: KeyServices
    about_tokens: TokenServices
    management: Management


def services_of(request: AdminRequest) -> Services:
    services: Services = request.app.state.services
    return services


def key_services_of(request: AdminRequest) -> KeyServices:
    return services_of(request).about_keys


def token_services_of(request: AdminRequest) -> TokenServices:
    return services_of(request).about_tokens


def authentication_of(request: AdminRequest) -> Authentication:
    authentication: Authentication = request.app.state.authentication
    return authentication


def caller_of(request: AdminRequest) -> Caller:
    caller: Caller = request.scope["user"]
    return caller


@asynccontextmanager
async def refusing() -> AsyncIterator[None]:
    """What a service refuses to do within becomes a Refusal."""
    try:
        yield
    except Exception as failure:
        refusal = of_failure(failure)
        if refusal is None:
            raise
        raise refusal from None


@asynccontextmanager
async def recorded(
    request: AdminRequest, action: str, target: str, detail: Mapping[str, Any] | None = None
) -> AsyncIterator[Caller]:
    """Appends what is done within to the log of actions, with its outcome: `done`, a refusal's word, or `failed`.

    What a service refuses becomes a Refusal.
    """
    async with recorded_of(services_of(request).actions, caller_of(request), action, target, detail) as caller:
        yield caller


@asynccontextmanager
async def recorded_of(
    actions: ActionsService, caller: Caller, action: str, target: str, detail: Mapping[str, Any] | None = None
) -> AsyncIterator[Caller]:
    """As `recorded`, for what does not come as a request of HTTP."""
    outcome = FAILED
    try:
        yield caller
        outcome = DONE
    except Exception as failure:
        refusal = of_failure(failure)
        if refusal is None:
            raise
        outcome = refusal.problem.error
        raise refusal from None
    finally:
        await record(actions, caller, action, target, outcome, detail)


async def record(
    actions: ActionsService,
    caller: Caller,
    action: str,
    target: str,
    outcome: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Appends one action. It is done already, so a log that cannot be written is no error for whoever asked."""
    try:
        await actions.append(
            actor=caller.actor,
            address=caller.address,
            action=action,
            target=target,
            detail=detail or {},
            outcome=outcome,
        )
    except Exception as error:
        log.error("an action is not in the log of actions: %s by %s: %s", action, caller.actor, type(error).__name__)  # noqa: TRY400
