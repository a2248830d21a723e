"""The key pool of a worker: who is chosen, who is put aside, and who may come back."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

import pytest

from proxy.config import Algorithm, PoolGroup
from proxy.config import KeyPool as Settings
from proxy.key_pool.pool import BARS_TOLD, FILL_PAUSE_S, FILL_SLICE, Choice, Groups, KeyPool
from proxy.key_pool.traces import Over, Trace
from proxy.rules.credential_fields import placement
from proxy.rules.credentials import Ban, BanCause, Credential, Kind, Says, Verdict
from proxy.rules.selection import Candidate
from tests.proxy.key_pool.stores import Clock, SharedStore, keys, worker

MODEL = "gpt"
RATE_LIMITED = Verdict(Says.RATE_LIMITED, 60.0)
SUCCESS = Verdict(Says.SUCCESS)


def play(dialogue: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await dialogue()

    asyncio.run(main())


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def trace() -> Trace:
    return Trace("id", "/up", MODEL, "round-robin", 1, 0.0)


async def chosen(pool: KeyPool, model: str = MODEL, tried: Collection[Candidate] = ()) -> Choice | None:
    return await pool.choose((), model, None, tried, trace())


async def name_of(pool: KeyPool, model: str = MODEL) -> str | None:
    choice = await chosen(pool, model)
    return None if choice is None else choice.candidate.id


async def say(pool: KeyPool, choice: Choice, verdict: Verdict, status: int = 429, model: str = MODEL) -> None:
    pool.report(choice, model, verdict, status, pool.now_s(), pool.now_s())
    await settled()


async def say_of(pool: KeyPool, name: str, verdict: Verdict, status: int = 429, model: str = MODEL) -> None:
    while (choice := await chosen(pool, model)) is not None and choice.candidate.id != name:
        pass
    assert choice is not None
    await say(pool, choice, verdict, status, model)


def test_keys_follow_each_other() -> None:
    async def dialogue() -> None:
        pool = worker(None, Clock(), *keys("a", "b", "c"))
        names = [str(await name_of(pool)) for _ in range(6)]
        assert sorted(names[:3]) == ["a", "b", "c"]
        assert names[3:] == names[:3]

    play(dialogue)


def test_a_success_after_its_use_was_told_is_told_too() -> None:
    async def dialogue() -> None:
        pool = worker(None, Clock(), *keys("a"))
        first, second = await chosen(pool), await chosen(pool)
        assert first is not None
        assert second is not None
        await say(pool, first, SUCCESS, 200)
        assert [(one.requests, one.successes) for one in pool.figures.take_counts()] == [(2, 1)]
        await say(pool, second, SUCCESS, 200)
        assert [(one.requests, one.successes) for one in pool.figures.take_counts()] == [(0, 1)]

    play(dialogue)


def test_a_use_of_a_key_that_is_gone_is_not_told() -> None:
    async def dialogue() -> None:
        pool = worker(None, Clock(), *keys("a"))
        choice = await chosen(pool)
        assert choice is not None
        pool.credentials_changed([], ["a"])
        pool.figures.use(choice.candidate)  # as the answer does
        assert pool.figures.take_counts() == []

    play(dialogue)


def test_a_pool_without_keys_has_none_to_choose() -> None:
    async def dialogue() -> None:
        pool = worker(
            None, Clock(), Credential("off", "secret", enabled=False), Credential("oauth", "s", kind=Kind.OAUTH)
        )
        assert await chosen(pool) is None
        assert not pool.has_keys(())
        assert pool.retry_after_s((), MODEL) is None
        oauth = pool.oauth()
        assert oauth is not None
        assert pool.secret(oauth) == "s"

    play(dialogue)


def test_a_request_tries_each_key_once() -> None:
    async def dialogue() -> None:
        pool = worker(None, Clock(), *keys("a", "b"))
        tried: list[Candidate] = []
        while (choice := await chosen(pool, tried=tried)) is not None:
            tried.append(choice.candidate)
        assert {candidate.id for candidate in tried} == {"a", "b"}
        assert await chosen(pool) is not None

    play(dialogue)


def test_a_banned_key_is_tried_by_one_worker_when_its_time_has_come() -> None:
    async def dialogue() -> None:
        clock, store = Clock(), SharedStore()
        one, two = (worker(store, clock, *keys("a", "b")) for _ in range(2))
        await say_of(one, "a", RATE_LIMITED)
        store.announce()
        for pool in (one, two):
            assert {await name_of(pool) for _ in range(4)} == {"b"}
        clock.now_s += 61
        choices = await asyncio.gather(chosen(one), chosen(two), chosen(one), chosen(two))
        probes = [choice for choice in choices if choice is not None and choice.candidate.id == "a"]
        assert len(probes) == 1
        assert probes[0].probe == ("a", "")
        prober = one if probes[0] in (choices[0], choices[2]) else two
        await say(prober, probes[0], SUCCESS, 200)
        store.announce()
        for pool in (one, two):
            assert {await name_of(pool) for _ in range(4)} == {"a", "b"}
        assert store.bans == {}

    play(dialogue)


def test_a_key_with_a_ban_for_all_models_and_one_for_the_model_gets_one_probe() -> None:
    async def dialogue() -> None:
        clock, store = Clock(), SharedStore()
        one, two = (worker(store, clock, *keys("a", "b")) for _ in range(2))
        first, second = await chosen(one), await chosen(one)
        assert first is not None
        assert second is not None
        await say(one, second, SUCCESS, 200)  # so the model is known to exist
        await say(one, first, RATE_LIMITED)
        await say(one, first, Verdict(Says.RATE_LIMITED, 60.0, for_model=True))
        assert len(store.bans) == 2
        store.announce()
        clock.now_s += 61
        choices = await asyncio.gather(*(chosen(pool) for pool in (one, one, two, two, one)))
        assert sum(choice is not None and choice.probe is not None for choice in choices) == 1

    play(dialogue)


def test_a_probe_that_fails_is_the_last_for_a_while() -> None:
    async def dialogue() -> None:
        clock, store = Clock(), SharedStore()
        pool = worker(store, clock, *keys("a"))
        await say_of(pool, "a", RATE_LIMITED)
        clock.now_s += 61
        probe = await chosen(pool)
        assert probe is not None
        assert probe.probe is not None
        clock.now_s += 1
        await say(pool, probe, RATE_LIMITED)
        assert await chosen(pool) is None
        wait_s = pool.retry_after_s((), MODEL)
        assert wait_s is not None
        assert 59 <= wait_s <= 120

    play(dialogue)


def test_a_probe_whose_client_left_frees_the_key_for_the_next() -> None:
    async def dialogue() -> None:
        clock, store = Clock(), SharedStore()
        pool = worker(store, clock, *keys("a"))
        await say_of(pool, "a", RATE_LIMITED)
        clock.now_s += 61
        probe = await chosen(pool)
        assert probe is not None
        assert await chosen(pool) is None
        await say(pool, probe, Verdict(Says.NOTHING), 0)
        again = await chosen(pool)
        assert again is not None
        assert again.probe is not None

    play(dialogue)


def test_what_is_still_being_written_of_a_probe_stops_no_other_choice() -> None:
    async def dialogue() -> None:
        clock, store = Clock(), SharedStore()
        pool = worker(store, clock, *keys("a", "b"))
        await say_of(pool, "a", RATE_LIMITED)
        clock.now_s += 61
        probe = await chosen(pool)
        assert probe is not None
        assert probe.probe is not None
        pool.report(probe, MODEL, Verdict(Says.NOTHING), 0, clock.now_s, clock.now_s)
        assert await name_of(pool) == "b"  # and not a loop that never ends, since nobody lets the writer run
        await settled()
        assert await name_of(pool) == "a"

    play(dialogue)


def test_a_client_s_fault_bans_nobody() -> None:
    async def dialogue() -> None:
        store = SharedStore()
        pool = worker(store, Clock(), *keys("a"))
        for _ in range(100):
            choice = await chosen(pool)
            assert choice is not None
            await say(pool, choice, Verdict(Says.NOTHING), 400)
        assert store.puts == 0

    play(dialogue)


def test_failures_in_a_row_are_counted_over_all_workers() -> None:
    async def dialogue() -> None:
        store = SharedStore()
        clock = Clock()
        pools = [worker(store, clock, *keys("a", "b")) for _ in range(2)]
        for number in range(5):
            await say_of(pools[number % 2], "a", Verdict(Says.UNAUTHORIZED), 401)
        ban = store.bans["a", ""]
        assert ban.cause is BanCause.DEAD
        store.announce()
        for pool in pools:
            assert {await name_of(pool) for _ in range(4)} == {"b"}

    play(dialogue)


def test_a_ban_for_a_model_leaves_the_others() -> None:
    async def dialogue() -> None:
        pool = worker(SharedStore(), Clock(), *keys("a", "b"))
        await say_of(pool, "a", SUCCESS, 200)  # so the model is known to exist
        await say_of(pool, "a", Verdict(Says.RATE_LIMITED, 60.0, for_model=True))
        assert {await name_of(pool) for _ in range(4)} == {"b"}
        assert {await name_of(pool, "other") for _ in range(4)} == {"a", "b"}

    play(dialogue)


def test_keys_that_are_dead_do_not_hide_one_whose_ban_for_a_model_has_ended() -> None:
    async def dialogue() -> None:
        clock = Clock()
        names = [f"k{number}" for number in range(300)]
        pool = worker(None, clock, *keys(*names))
        for number, name in enumerate(names):
            pool.ban_changed(name, MODEL, Ban(BanCause.RATE_LIMITED, clock.now_s, clock.now_s + 1 + number / 1000))
        for name in names[:-1]:
            pool.ban_changed(name, "", Ban(BanCause.DEAD, clock.now_s, clock.now_s + 3600))
        assert await chosen(pool) is None
        clock.now_s += 2
        assert await name_of(pool) == names[-1]

    play(dialogue)


def test_another_group_moves_those_that_name_it_and_no_others() -> None:
    async def dialogue() -> None:
        clock = Clock()
        pool = worker(None, clock, *keys("a"), *keys("b", group="new"))
        pool.ban_changed("b", "", Ban(BanCause.DEAD, clock.now_s, clock.now_s + 60))
        assert {await name_of(pool) for _ in range(4)} == {"a"}
        pool.use(Settings(groups={"new": PoolGroup()}))
        assert await pool.choose(("new",), MODEL, None, (), trace()) is None
        assert pool.retry_after_s(("new",), MODEL) == 60
        clock.now_s += 61
        choice = await pool.choose(("new",), MODEL, None, (), trace())
        assert choice is not None
        assert choice.probe == ("b", "")
        pool.use(Settings())
        assert not pool.has_keys(("new",))
        assert pool.retry_after_s((), MODEL) == 30  # its probe

    play(dialogue)


def test_a_disabled_key_s_ban_is_nobody_s_business() -> None:
    async def dialogue() -> None:
        clock = Clock()
        pool = worker(None, clock, *keys("a", "b"))
        pool.ban_changed("a", "", Ban(BanCause.DEAD, clock.now_s, clock.now_s + 60))
        pool.credentials_changed([Credential("a", "secret-a", enabled=False)], [])
        clock.now_s += 61
        assert await name_of(pool) == "b"
        first = pool.pick_first((), "", clock.now_s)
        assert first is not None, "nobody is due"
        pool.credentials_changed(keys("a"), [])
        assert await name_of(pool) == "a"

    play(dialogue)


def test_a_selector_for_a_model_goes_with_its_last_ban() -> None:
    async def dialogue() -> None:
        clock = Clock()
        names = [f"k{number}" for number in range(100)]
        pool = worker(None, clock, *keys(*names))
        for name in names[:-1]:
            pool.ban_changed(name, MODEL, Ban(BanCause.RATE_LIMITED, clock.now_s, clock.now_s + 60))
        assert await name_of(pool) == names[-1]
        assert [model for _, model in pool._selectors] == ["", MODEL]
        for name in names[:-1]:
            pool.ban_changed(name, MODEL, None)
        assert [model for _, model in pool._selectors] == [""]
        assert len({await name_of(pool) for _ in range(100)}) == 100

    play(dialogue)


def test_many_bans_for_a_model_do_not_hide_the_key_that_is_left() -> None:
    async def dialogue() -> None:
        names = [f"k{number}" for number in range(100)]
        pool = worker(SharedStore(), Clock(), *keys(*names))
        await say_of(pool, "k0", SUCCESS, 200)
        for name in names[1:]:
            await say_of(pool, name, Verdict(Says.RATE_LIMITED, 60.0, for_model=True))
        assert {await name_of(pool) for _ in range(5)} == {"k0"}
        assert len({await name_of(pool, "other") for _ in range(200)}) == 100

    play(dialogue)


def test_a_made_up_model_bans_nobody() -> None:
    async def dialogue() -> None:
        store = SharedStore()
        pool = worker(store, Clock(), *keys("a"))
        for number in range(50):
            choice = await chosen(pool, f"made-up-{number}")
            assert choice is not None
            await say(pool, choice, Verdict(Says.NOT_ENTITLED, for_model=True), 404, f"made-up-{number}")
        assert store.bans == {}

    play(dialogue)


def test_where_nothing_else_is_left_the_upstream_s_own_failures_do_not_lock_it_out() -> None:
    async def dialogue() -> None:
        pool = worker(SharedStore(), Clock(), *keys("a", "b"))
        for name in ("a", "b"):
            await say_of(pool, name, Verdict(Says.OVERLOADED), 503)
        choice = await chosen(pool)
        assert choice is not None
        assert choice.probe is None
        await say(pool, choice, SUCCESS, 200)
        assert await name_of(pool) == choice.candidate.id

    play(dialogue)


def test_tiers_follow_each_other() -> None:
    async def dialogue() -> None:
        pool = worker(SharedStore(), Clock(), *keys("cheap", group="freebies"), *keys("dear", group="main"))
        groups = {"freebies": PoolGroup(priority=1), "main": PoolGroup(priority=2)}
        pool.use(Settings(multi_tier=True, groups=groups))
        assert {await name_of(pool) for _ in range(3)} == {"cheap"}
        await say_of(pool, "cheap", RATE_LIMITED)
        assert {await name_of(pool) for _ in range(3)} == {"dear"}
        pool.use(Settings(multi_tier=True, strict_mode=True, groups=groups))
        assert await chosen(pool) is None
        assert await pool.choose(("main",), MODEL, None, (), trace()) is not None

    play(dialogue)


def test_a_first_choice_that_nothing_speaks_against_is_like_any_other() -> None:
    async def dialogue() -> None:
        clock = Clock()
        pool = worker(SharedStore(), clock, *keys("a", "b"), *keys("dear", group="main"))
        pool.use(Settings(multi_tier=True, groups={"default": PoolGroup(priority=1), "main": PoolGroup(priority=2)}))
        assert pool.pick_first((), "", clock.now_s) is None, "nothing is compiled yet"
        await name_of(pool)
        await name_of(pool)
        await pool.choose(("main",), MODEL, None, (), trace())

        def picked(model: str = "") -> set[str]:
            found = [pool.pick_first((), model, clock.now_s) for _ in range(4)]
            return {candidate.id for candidate in found if candidate is not None}

        assert picked() == {"a", "b"}
        await say_of(pool, "a", SUCCESS, 200)
        await say_of(pool, "a", Verdict(Says.RATE_LIMITED, 60.0, for_model=True))
        assert pool.banned_models
        assert picked(MODEL) == {"b"}
        assert picked("other") == {"a", "b"}
        await say_of(pool, "b", RATE_LIMITED)
        assert picked("other") == {"a"}
        assert picked(MODEL) == {"dear"}
        clock.now_s += 61
        assert picked(MODEL) == set(), "somebody is due"

    play(dialogue)


def test_keys_come_and_go() -> None:
    async def dialogue() -> None:
        pool = worker(SharedStore(), Clock(), *keys("a"))
        await name_of(pool)
        pool.credentials_changed(keys("b"), ["a"])
        assert {await name_of(pool) for _ in range(3)} == {"b"}
        pool.credentials_changed([Credential("b", "secret-b", enabled=False)], [])
        assert await chosen(pool) is None
        pool.credentials_changed([Credential("b", "another")], [])
        choice = await chosen(pool)
        assert choice is not None
        assert pool.secret(choice.candidate) == "another"

    play(dialogue)


def test_what_is_said_of_a_key_that_is_gone_is_nobody_s() -> None:
    async def dialogue() -> None:
        store = SharedStore()
        pool = worker(store, Clock(), *keys("a"))
        choice = await chosen(pool)
        assert choice is not None
        pool.credentials_changed([], ["a"])
        await say(pool, choice, RATE_LIMITED)
        assert (store.bans, pool.figures.take_counts(), len(pool.bans)) == ({}, [], 0)

    play(dialogue)


def test_another_algorithm_is_used_at_once() -> None:
    async def dialogue() -> None:
        pool = worker(SharedStore(), Clock(), *keys("a", "b"))
        for _ in range(3):
            await say_of(pool, "a", SUCCESS, 200)
        pool.use(Settings(algorithm=Algorithm.LEAST_USED))
        least = min(pool._candidates.values(), key=lambda candidate: candidate.requests)
        assert await name_of(pool) == least.id

    play(dialogue)


MANY = [f"k{number:04}" for number in range(2 * FILL_SLICE + 500)]


async def filled() -> None:
    """Waits until selectors of MANY are filled."""
    await asyncio.sleep(10 * FILL_PAUSE_S)


def sizes(pool: KeyPool) -> dict[Groups, int]:
    return {groups: len(each) for (groups, _), each in pool._selectors.items()}


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_selector_of_many_is_used_before_all_are_in_it(algorithm: Algorithm) -> None:
    """Else a change of the algorithm would stop the event loop for half a second with 100,000 keys."""

    async def dialogue() -> None:
        clock = Clock()
        pool = worker(None, clock, *keys(*MANY))
        pool.use(Settings(algorithm=algorithm))
        choice = await pool.choose((), MODEL, b"a conversation", (), trace())
        assert choice is not None
        assert sizes(pool) == {("default",): FILL_SLICE}
        absent = [one for one in pool._candidates.values() if one not in pool._selectors[("default",), ""]]
        gone, banned, moved = (one.id for one in absent[:3])
        pool.credentials_changed([*keys("new"), *keys(moved, group="other")], [gone])
        pool.ban_changed(banned, "", Ban(BanCause.DEAD, clock.now_s, clock.now_s + 60))
        pool.use(Settings(algorithm=algorithm, multi_tier=True, groups={"other": PoolGroup()}))
        await filled()
        inside = pool._selectors[("default",), ""]
        expected = {*MANY, "new"} - {gone, banned, moved}
        assert {one.id for one in pool._candidates.values() if one in inside} == expected
        assert len(inside) == len(expected)

    play(dialogue)


def test_a_selector_that_is_being_filled_gives_way_to_the_next() -> None:
    async def dialogue() -> None:
        pool = worker(None, Clock(), *keys(*MANY))
        await name_of(pool)
        first = pool._selectors[("default",), ""]
        pool.use(Settings(algorithm=Algorithm.LEAST_USED))
        await name_of(pool)
        await filled()
        assert len(first) == FILL_SLICE
        assert sizes(pool) == {("default",): len(MANY)}

    play(dialogue)


def test_few_that_may_be_used_are_found_among_many_at_once() -> None:
    async def dialogue() -> None:
        clock = Clock()
        pool = worker(None, clock, *keys(*MANY))
        for name in MANY:
            if name != MANY[-100]:
                pool.ban_changed(name, "", Ban(BanCause.DEAD, clock.now_s, clock.now_s + 60))
        assert await name_of(pool) == MANY[-100]

    play(dialogue)


def test_a_group_that_goes_moves_no_key_and_makes_no_selector() -> None:
    async def dialogue() -> None:
        pool = worker(None, Clock(), *keys("a"), *keys("b", group="big"))
        pool.use(Settings(groups={"big": PoolGroup()}))
        assert {await name_of(pool) for _ in range(2)} == {"a", "b"}
        before = dict(pool._selectors)
        pool.use(Settings())
        assert {await name_of(pool) for _ in range(2)} == {"a", "b"}
        assert pool._selectors == before
        assert (pool.has_keys(("default",)), pool.has_keys(("big",))) == (True, False)
        pool.credentials_changed(keys("b"), [])
        assert {await name_of(pool) for _ in range(2)} == {"a", "b"}
        assert len(pool._selectors) == 2
        pool.tick()
        assert sizes(pool) == {("default",): 2}

    play(dialogue)


def test_many_secrets_that_cannot_be_decrypted_are_told_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    pool = KeyPool(now_s=Clock())
    pool.credentials_changed(keys(*map(str, range(BARS_TOLD + 5))), [])
    for candidate in list(pool._candidates.values()):
        assert pool.secret(candidate) is None
    pool.tick()
    pool.tick()
    assert len(caplog.messages) == BARS_TOLD + 1
    assert caplog.messages[-1] == "credentials: 5 further cannot be used"


def test_a_key_whose_secret_can_be_decrypted_again_comes_back() -> None:
    async def dialogue() -> None:
        known = {"new": "secret"}
        pool = KeyPool(lambda secret, _purpose: known[secret], Clock(), lambda: 0.0)
        pool.credentials_changed([Credential("a", "old")], [])
        assert pool.secret(pool._candidates["a"]) is None
        assert await chosen(pool) is None
        pool.credentials_changed([Credential("a", "new")], [])
        choice = await chosen(pool)
        assert choice is not None
        in_field, in_query = placement("x-a"), placement("?a")
        assert pool.shown(choice.candidate, in_field) == choice.candidate.shown == (b"x-a", b"secret")
        assert pool.shown(choice.candidate, in_query) == choice.candidate.shown == (b"", b"secret")
        known["newer"] = "other"
        pool.credentials_changed([Credential("a", "newer")], [])
        assert pool.shown(choice.candidate, in_field) == choice.candidate.shown == (b"x-a", b"other")
        pool.credentials_changed([], ["a"])
        assert pool._secrets == {}

    play(dialogue)


def test_a_secret_that_cannot_be_decrypted_bars_its_key(caplog: object) -> None:  # noqa: ARG001
    def fail(_secret: str, purpose: str) -> str:
        raise ValueError(f"secret of {purpose}")

    async def dialogue() -> None:
        pool = KeyPool(fail, Clock(), lambda: 0.0)
        pool.credentials_changed(keys("a"), [])
        choice = await chosen(pool)
        assert choice is not None
        assert pool.secret(choice.candidate) is None
        assert await chosen(pool) is None

    play(dialogue)


def test_without_redis_too_a_worker_grants_itself_one_probe() -> None:
    async def dialogue() -> None:
        clock, store = Clock(), SharedStore()
        pool = worker(store, clock, *keys("a", "b"))
        await say_of(pool, "a", RATE_LIMITED)
        clock.now_s += 61
        store.away = True
        choices = await asyncio.gather(*(chosen(pool) for _ in range(4)))
        assert sorted(choice.candidate.id for choice in choices if choice is not None) == ["a", "b", "b", "b"]

    play(dialogue)


def test_without_redis_a_worker_decides_alone() -> None:
    async def dialogue() -> None:
        clock, store = Clock(), SharedStore()
        pool = worker(store, clock, *keys("a"))
        store.away = True
        await say_of(pool, "a", RATE_LIMITED)
        assert await chosen(pool) is None
        clock.now_s += 61
        probe = await chosen(pool)
        assert probe is not None
        await say(pool, probe, SUCCESS, 200)
        store.away = False
        assert await name_of(pool) == "a"

    play(dialogue)


def test_a_trace_names_who_was_passed_over_and_why() -> None:
    async def dialogue() -> None:
        pool = worker(None, Clock(), *keys("a", "b"), *keys("c", group="other"))
        await say_of(pool, "a", RATE_LIMITED)
        told = trace()
        await pool.choose((), MODEL, None, (), told)
        over = Over("a", "", BanCause.RATE_LIMITED, pool.now_s() + 60)
        assert [(look.banned, look.passed_over) for look in told.looks] == [({"rate_limited": 1}, [over])]
        pool.ban_changed("a", "", None)
        told = trace()
        await pool.choose((), MODEL, None, (), told)
        assert [(look.banned, look.passed_over) for look in told.looks] == [({}, [])]

    play(dialogue)
