//! The scoreboard of a process group: one shared mapping that tells child
//! processes where a thread is free, and everybody what runs where.
//!
//! Written by child processes, the supervisor and the daemon processes of that
//! group, mapped by no other group's.  A daemon process runs the application and
//! is not trusted: what is read here is a hint, range-checked, never an index or
//! a length.  The number of slots and tickets comes from whoever made the mapping.
//!
//! - A **slot** is the place of one daemon process; it survives the process.
//! - A **ticket** is the right to send one request to the process in a slot.  A
//!   process has as many as threads.  A child takes one before it sends, the
//!   worker gives it back, so a request is only sent where a thread is free.
//! - Each worker notes the id of the request it runs before the application
//!   sees it: a request that is not there when its process dies never started.

mod exit;
mod mapping;
pub mod snapshot;

pub use exit::{Exit, How, Reason};
pub use mapping::{MEMORY_NAME, Running, Scoreboard, Slot};

/// What the process in a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// No process.
    Empty = 0,
    /// A process loads Python and its scripts.
    Starting = 1,
    /// It takes requests.
    Ready = 2,
    /// It finishes what was sent to it, and takes no more.
    Draining = 3,
    /// It takes no more until it is known whether a script that changed can be loaded.
    Held = 4,
}

impl State {
    /// Whether a process serves: perhaps not at this moment.
    pub const fn is_serving(self) -> bool {
        matches!(self, Self::Ready | Self::Held)
    }

    /// The state with this number; anything unknown takes no requests.
    fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Starting,
            2 => Self::Ready,
            3 => Self::Draining,
            4 => Self::Held,
            _ => Self::Empty,
        }
    }
}

/// How large a mapping is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Slots, twice as many as processes at least.
    pub slots: u32,
    /// Tickets of each slot, as many as threads at least; a multiple of 64.
    pub tickets: u32,
}

impl Shape {
    /// Room for a group, and for it to grow a little without a new mapping:
    /// pages nobody touches cost nothing.
    pub fn for_group(processes: u32, threads: u32) -> Self {
        Self {
            slots: slots_of(processes).next_power_of_two().max(8),
            tickets: threads.max(1).next_multiple_of(64),
        }
    }

    /// Whether a group of this size fits.
    pub fn holds(self, processes: u32, threads: u32) -> bool {
        slots_of(processes) <= self.slots && threads <= self.tickets
    }
}

/// How many slots a group of so many processes uses: one for each, and more for
/// their replacements, because a process that drains holds its slot while the next
/// change of its script, and the one after that, already want another.
pub fn slots_of(processes: u32) -> u32 {
    processes.saturating_mul(3).saturating_add(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn board() -> Scoreboard {
        let shape = Shape::for_group(1, 3);
        Scoreboard::open(Scoreboard::create(shape).unwrap(), shape).unwrap()
    }

    #[test]
    fn a_slot_gives_as_many_tickets_as_it_has_threads() {
        let board = board();
        let slot = board.slot(0).unwrap();
        assert_eq!(slot.take_ticket(1), None);
        slot.open(7, 3);
        let taken: Vec<_> = (0..3).map(|_| slot.take_ticket(1).unwrap()).collect();
        assert_eq!(taken, [0, 1, 2]);
        assert_eq!(slot.take_ticket(1), None);
        slot.give_ticket(1);
        slot.give_ticket(1);
        assert_eq!(slot.take_ticket(1), Some(1));
        assert_eq!(slot.take_ticket(1), None);
    }

    #[test]
    fn a_process_is_held_only_while_it_serves() {
        let board = board();
        let slot = board.slot(0).unwrap();
        assert!(!slot.hold());
        slot.open(7, 3);
        assert!(slot.hold());
        assert_eq!(slot.state(), State::Held);
        slot.release();
        assert_eq!(slot.state(), State::Ready);
        slot.set_state(State::Draining);
        slot.release();
        assert_eq!(slot.state(), State::Draining);
    }

    #[test]
    fn a_ticket_out_of_range_is_nobodys() {
        let board = board();
        let slot = board.slot(0).unwrap();
        slot.open(1, 3);
        slot.give_ticket(u32::MAX);
        assert_eq!(slot.free(), 3);
        assert!(board.slot(99).is_none());
    }

    #[test]
    fn what_runs_is_found_by_its_id() {
        let board = board();
        let slot = board.slot(1).unwrap();
        slot.begin(2, 42, 1000);
        assert!(!slot.is_running(42), "it waits for Python");
        slot.attach(2, 42);
        assert!(slot.is_running(42));
        assert!(!slot.is_running(43));
        slot.end(2);
        assert!(!slot.is_running(42));
    }

    #[test]
    fn a_request_whose_answer_nobody_had_has_begun() {
        let board = board();
        let slot = board.slot(0).unwrap();
        slot.prepare(1);
        slot.begin(0, 42, 1000);
        slot.attach(0, 42);
        slot.end_unheard(0);
        assert!(slot.may_have_begun(42, 1));
        assert_eq!(slot.all_running().count(), 0);
        slot.begin(0, 43, 2000);
        slot.attach(0, 43);
        slot.end(0);
        assert!(!slot.may_have_begun(42, 1));
    }

    #[test]
    fn what_runs_is_listed_with_its_beginning() {
        let board = board();
        let slot = board.slot(0).unwrap();
        slot.begin(1, 42, 1000);
        slot.begin(2, 43, 2000);
        slot.end(1);
        let found: Vec<_> = slot.all_running().collect();
        assert_eq!(found, [Running { id: 43, since: 2000 }]);
    }

    #[test]
    fn a_loaded_script_is_noted_for_good() {
        let board = board();
        let slot = board.slot(0).unwrap();
        assert_eq!(slot.loading_since(), None);
        slot.expect_load(500);
        slot.expect_load(900);
        assert_eq!(slot.loading_since(), Some(500));
        slot.note_load();
        slot.expect_load(1000);
        assert_eq!(slot.loading_since(), None);
    }

    #[test]
    fn what_a_forgotten_process_ran_may_have_begun() {
        let board = board();
        let slot = board.slot(0).unwrap();
        slot.prepare(1);
        slot.open(1, 3);
        slot.begin(0, 42, 1000);
        slot.attach(0, 42);
        assert!(slot.may_have_begun(42, 1));
        assert!(!slot.may_have_begun(43, 1));
        slot.prepare(2);
        assert!(slot.may_have_begun(42, 1), "its record is gone");
        assert!(!slot.may_have_begun(42, 2));
    }

    #[test]
    fn a_new_process_inherits_no_owners() {
        let board = board();
        let slot = board.slot(0).unwrap();
        slot.open(1, 3);
        slot.take_ticket(77).unwrap();
        slot.prepare(2);
        slot.open(2, 2);
        assert!(!slot.reclaim(|_| false));
        assert_eq!(slot.free(), 2);
    }

    #[test]
    fn a_waiter_is_woken_by_a_ticket() {
        let board = board();
        let slot = board.slot(0).unwrap();
        slot.open(1, 1);
        let ticket = slot.take_ticket(1).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let place = board.enqueue(10).unwrap();
                loop {
                    let seen = place.event();
                    if let Some(ticket) = board.slot(0).unwrap().take_ticket(2) {
                        return ticket;
                    }
                    place.wait(seen, Some(Instant::now() + Duration::from_secs(10)));
                }
            });
            slot.give_ticket(ticket);
            board.wake_one();
            assert_eq!(waiter.join().unwrap(), ticket);
        });
        assert_eq!(board.waiting(), 0);
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let board = board();
        let first = board.enqueue(1).unwrap();
        assert!(board.enqueue(1).is_none());
        drop(first);
        assert!(board.enqueue(1).is_some());
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let board = board();
        let place = board.enqueue(1).unwrap();
        let seen = place.event();
        place.wait(seen, Some(Instant::now() + Duration::from_millis(20)));
    }

    #[test]
    fn a_dead_childs_tickets_are_found() {
        let board = board();
        let slot = board.slot(0).unwrap();
        slot.open(1, 3);
        let lost = slot.take_ticket(77).unwrap();
        let kept = slot.take_ticket(78).unwrap();
        slot.reclaim(|pid| pid != 77);
        assert_eq!(slot.free(), 2);
        assert_eq!(slot.take_ticket(79), Some(lost));
        slot.accept_ticket(kept);
        slot.reclaim(|pid| pid != 78);
        assert_eq!(slot.free(), 1, "its worker has it");
    }

    #[test]
    fn what_children_do_not_hold_can_be_withdrawn() {
        let board = board();
        let slot = board.slot(0).unwrap();
        slot.open(1, 3);
        let ticket = slot.take_ticket(1).unwrap();
        let mut held = Vec::new();
        assert_eq!(slot.withdraw(&mut held), 2);
        assert_eq!(slot.take_ticket(1), None);
        slot.give_ticket(ticket);
        assert_eq!(slot.withdraw(&mut held), 3);
        slot.give_ticket(ticket);
        assert_eq!(slot.withdraw(&mut held), 3, "the same ticket again");
    }

    #[test]
    fn an_exit_is_remembered_with_its_generation() {
        let board = board();
        let slot = board.slot(0).unwrap();
        let exit = Exit { how: How::Signal(9), why: None };
        slot.set_exit(5, exit);
        assert_eq!(slot.exit_of(5), Some(exit));
        assert_eq!(slot.exit_of(6), None);
    }

    #[test]
    fn a_second_mapping_shows_the_same() {
        let shape = Shape::for_group(1, 3);
        let memory = Scoreboard::create(shape).unwrap();
        let board = Scoreboard::open(&memory, shape).unwrap();
        let other = Scoreboard::open(&memory, shape).unwrap();
        board.slot(0).unwrap().open(9, 2);
        assert_eq!(other.slot(0).unwrap().generation(), 9);
        assert_eq!(other.slot(0).unwrap().state(), State::Ready);
    }

    #[test]
    fn nobody_can_shrink_it_under_the_others() {
        let file = std::fs::File::from(Scoreboard::create(Shape::for_group(1, 3)).unwrap());
        assert!(file.set_len(1).is_err());
        assert!(file.set_len(1 << 30).is_err());
    }
}
