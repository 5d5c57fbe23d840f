//! What a group does, without processes.
#![forbid(unsafe_code)]

use super::*;
use crate::daemon::changes::{Change, Changed};
use crate::daemon::plan::{Identity, Limits};
use crate::host::Apache;
use std::io::IoSlice;

/// A group with one process that is only said to be there, and the other ends
/// of its inbox and of its control socket.
fn group() -> (Group, OwnedFd, OwnedFd) {
    let shape = crate::scoreboard::Shape::for_group(1, 1);
    let plan = GroupPlan {
        name: "one".to_owned(),
        board: 1,
        shape: (shape.slots, shape.tickets),
        processes: 1,
        threads: 1,
        multiprocess: false,
        run_once: false,
        log_level: 0,
        title: String::new(),
        identity: Identity {
            uid: 0,
            gid: 0,
            user_name: String::new(),
            user_home: "/".into(),
            supplementary: None,
            chroot: None,
            go_home: false,
        },
        home: None,
        umask: None,
        locale: None,
        cpu_priority: None,
        cpu_limit: None,
        memory_limit: None,
        virtual_memory_limit: None,
        open_files: 0,
        stack_size: None,
        python: Err(String::new()),
        python_below: None,
        python_path: String::new(),
        interpreters: Default::default(),
        clear_environment: false,
        env_file: None,
        apache_version: [0; 3],
        apache: Apache::default(),
        preload: Vec::new(),
        socket_timeout: Duration::ZERO,
        keep: false,
        graceful_timeout: Duration::ZERO,
        shutdown_timeout: Duration::ZERO,
        limits: Limits::default(),
        rolling_reload: false,
        switch_interval: None,
        stream_levels: (0, 0),
        server_metrics: false,
        telemetry: None,
    };
    let (send, receive) = sys::message_pair().unwrap();
    let board = Some(Scoreboard::create(shape).unwrap());
    let inboxes = vec![receive];
    let mut group =
        Group::new(plan, Descriptors { board, inboxes, ..Descriptors::default() }).unwrap();
    let (ours, theirs) = sys::message_pair().unwrap();
    // No such process.
    let mut member = Member::new(Pid::from_raw(i32::MAX), (0, 1), &group.plan, ours);
    member.phase = Phase::Ready;
    group.members.push(member);
    (group, send, theirs)
}

#[test]
fn a_process_that_never_stops_talking_does_not_stop_the_supervisor() {
    let (mut group, _inbox, process) = group();
    let mut sent = 0_u32;
    loop {
        let path = sent.to_le_bytes().to_vec();
        let script = Script { application_group: Vec::new(), path };
        let message = ToSupervisorFromDaemon::Loaded(script);
        if control::try_send(process.as_fd(), &message, &[]).is_err() {
            break;
        }
        sent += 1;
    }
    group.read_messages();
    assert!(group.learned.iter().count() <= MOST_MESSAGES);
    for _ in 0..sent {
        group.read_messages();
    }
    assert!(sent as usize > MOST_SCRIPTS);
    assert_eq!(group.learned.iter().count(), MOST_SCRIPTS);
}

/// A change of the script with this number.
fn change(number: u32) -> Change {
    let path = number.to_le_bytes().to_vec();
    Change { script: Script { application_group: Vec::new(), path }, changed: Changed::default() }
}

#[test]
fn what_a_process_makes_up_is_not_remembered_without_end() {
    let (mut group, _inbox, _process) = group();
    for number in 0..1000 {
        let Change { script, .. } = change(number);
        group.heard(0, &ToSupervisorFromDaemon::Loaded(script));
        group.heard(0, &ToSupervisorFromDaemon::Stale(change(number)));
        group.release(
            (5000 + number..5003 + number).map(change).map(|it| (it.script, it.changed)).collect(),
        );
    }
    assert_eq!(group.changes.asked().len(), MOST_SCRIPTS);
    assert!(group.changes.tried() < 5 * MOST_SCRIPTS);
    assert!(group.members[0].known.len() <= 4 * MOST_SCRIPTS);
}

#[test]
fn a_script_is_tried_again_when_another_process_has_loaded_it() {
    let (mut group, _inbox, process) = group();
    let (ours, _theirs) = sys::message_pair().unwrap();
    group.members.push(Member::new(Pid::from_raw(i32::MAX - 1), (0, 2), &group.plan, ours));
    let Change { script, .. } = change(1);
    group.learn(&script, false);
    group.members[0].phase = Phase::Starting;
    group.members[0].known.insert(script.clone());
    group.heard(0, &ToSupervisorFromDaemon::Tried { change: change(1), loaded: false });
    group.heard(0, &ToSupervisorFromDaemon::Ready { failure: Some(1) });
    assert!(matches!(control::receive::<ToDaemon>(&process), Ok(Message::None)), "at once");
    group.heard(1, &ToSupervisorFromDaemon::Loaded(script.clone()));
    let told = control::receive::<ToDaemon>(&process);
    assert!(matches!(told, Ok(Message::One(ToDaemon::Load(it), _)) if it == script));
}

#[test]
fn a_retired_group_holds_no_request_for_code_that_does_not_come() {
    let (mut group, _inbox, _process) = group();
    let slot = group.board.slot(0).unwrap();
    slot.open(1, 1);
    group.retire();
    group.heard(0, &ToSupervisorFromDaemon::Stale(change(1)));
    assert_eq!(group.changes.deadline(), None);
    assert_eq!(group.board.slot(0).unwrap().state(), State::Ready);
}

#[test]
fn a_living_process_without_its_control_socket_is_not_waited_for() {
    let (mut group, _inbox, process) = group();
    sys::send(process.as_fd(), &[IoSlice::new(&[0xff; 9])], &[]).unwrap();
    group.read_messages();
    assert_eq!(group.controls().count(), 1, "nonsense is overheard");
    drop(process);
    group.read_messages();
    assert_eq!(group.controls().count(), 0);
    assert!(group.next_deadline().is_some());
}

#[test]
fn a_process_that_said_it_was_leaving_was_not_lost() {
    for words in [0, 1] {
        let (mut group, _inbox, process) = group();
        for _ in 0..words {
            control::try_send(process.as_fd(), &ToSupervisorFromDaemon::Leaving, &[]).unwrap();
        }
        // Its end is seen before what it said is read.
        assert!(group.ended(Pid::from_raw(i32::MAX), How::Code(0)));
        let exit = group.board.slot(0).unwrap().exit_of(1).unwrap();
        assert_eq!(exit.why.is_some(), words == 1, "{exit}");
    }
}

#[test]
fn starts_that_never_end_are_paced() {
    let (mut group, _inbox, _process) = group();
    let now = group.paced;
    let at_once = (0..1000).filter(|_| group.may_start(now)).count();
    assert_eq!(at_once, most_starts(&group.plan) as usize);
    let later = (0..1000).filter(|_| group.may_start(now + starts::PACE * 2)).count();
    assert_eq!(later, 2);
}

#[test]
fn a_retired_group_serves_until_nobody_can_reach_it() {
    let (mut group, inbox, _process) = group();
    group.retire();
    group.end_lingering(Instant::now());
    assert!(group.lingers.is_some());
    drop(inbox);
    group.end_lingering(Instant::now());
    assert!(group.lingers.is_none());
}

#[test]
fn the_slot_that_has_been_empty_longest_is_next() {
    let (mut group, _inbox, _process) = group();
    group.members.clear();
    group.inboxes.push(sys::message_pair().unwrap().1);
    let slot = group.board.slot(0).unwrap();
    slot.prepare(5);
    slot.set_state(State::Empty);
    assert_eq!(group.free_slot(), Some(1));
}
