"""What machines can tell of a server's clock."""

from __future__ import annotations

import pytest

from airflow_provider_forge.gateway.clocks import DRIFT, MAX_MACHINES, ClockOffsets, MachineClock, Reading

TOLERANCE = 0.5


def step(offsets, machine, at, server, *, slow=0.0):
    """Let a machine read the server's time, and return the step that it finds."""
    return offsets.step(Reading(machine, at, at + slow, server), TOLERANCE)


@pytest.fixture
def offsets():
    """The clocks of two machines."""
    offsets = ClockOffsets()
    assert step(offsets, "a", 100, 5000) == 0
    assert step(offsets, "b", 9000, 5000) == 0
    return offsets


@pytest.mark.parametrize("seconds", [0.6, 7, 3600])
def test_a_step_is_found_once_for_all_machines(offsets, seconds):
    assert step(offsets, "b", 9010, 5010 + seconds) == pytest.approx(seconds, abs=0.01)
    assert step(offsets, "b", 9011, 5011 + seconds) == 0
    assert step(offsets, "a", 111, 5011 + seconds) == 0
    assert step(offsets, "a", 112, 5012 + 2 * seconds) == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize("seconds", [0.4, 0, -0.4, -7, -3600])
def test_what_is_within_the_tolerance_or_back_is_no_step(offsets, seconds):
    assert step(offsets, "a", 110, 5010 + seconds) == 0


def test_a_clock_that_was_set_back_and_forward_again_was_set_forward(offsets):
    assert step(offsets, "a", 110, 5010 - 60) == 0
    assert step(offsets, "a", 120, 5020) == pytest.approx(60, abs=0.01)


def test_a_step_back_that_one_machine_has_seen_counts_for_all(offsets):
    offsets.set_back(60)
    assert step(offsets, "a", 110, 5010 - 60) == 0
    assert step(offsets, "b", 9020, 5020) == pytest.approx(60, abs=0.02)


def test_small_steps_add_up(offsets):
    """As of a server that adjusts its clock by letting it run fast."""
    found = [step(offsets, "a", 100 + number, 5000 + 1.08 * number) for number in range(1, 60)]
    assert sum(found) == pytest.approx(0.08 * 59, abs=TOLERANCE)


def test_good_clocks_differ_for_as_long_as_they_like(offsets):
    assert step(offsets, "a", 100 + 1e6, 5000 + 1e6 * (1 + DRIFT / 2)) == 0
    for more in range(9):
        assert step(offsets, "a", 100 + 1e6 + more, 5000 + (1e6 + more) * (1 + DRIFT / 2)) == 0


@pytest.mark.parametrize("late", [0.0, 3.0])
def test_a_slow_answer_is_no_step(offsets, late):
    """Whether the request took its time, or the reply."""
    assert step(offsets, "a", 110, 5010 + late, slow=3.0) == 0
    assert step(offsets, "a", 120, 5020) == 0


def test_a_copy_of_a_machine_is_another_machine(offsets):
    """It has the same id, and each would find a step whenever the other has been there."""
    for at in range(110, 200, 10):
        assert step(offsets, "a", at, 4900 + at) == 0
        assert step(offsets, "a", at - 60, 4900 + at) == 0


def test_those_that_were_heard_of_last_are_remembered(offsets):
    for number in range(MAX_MACHINES - 1):
        step(offsets, f"machine-{number}", 100, 5000)
        step(offsets, "a", 100, 5000)
    assert len(offsets.known) == MAX_MACHINES
    assert "a" in offsets.known
    assert "b" not in offsets.known


def test_a_machine_is_the_same_for_its_processes_until_it_is_started_again(tmp_path):
    boot_id = tmp_path / "sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text("8a4f0f0e\n")
    first = MachineClock.find(tmp_path)
    assert MachineClock.find(tmp_path).machine == first.machine
    assert "8a4f" not in first.machine
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/time").symlink_to("time:[4026531834]")
    namespace = MachineClock.find(tmp_path)
    boot_id.write_text("1b2c3d4e\n")
    assert len({first.machine, namespace.machine, MachineClock.find(tmp_path).machine}) == 3
    assert first.now() <= MachineClock.find().now()


def test_on_another_system_each_process_has_a_clock_of_its_own(tmp_path):
    one, other = MachineClock.find(tmp_path), MachineClock.find(tmp_path)
    assert one.machine != other.machine
    assert one.now() <= other.now()
