//! Each rule by an example.

use wasmbox::admission::{Capacity, Refused};

use super::{BOUNDS, Name, audited::Audited};

fn server(units: u64, depth: u64) -> Audited {
    Audited::new(Capacity { units, depth, ..BOUNDS }, 4)
}

#[test]
fn the_function_with_the_fewest_units_in_flight_is_next() {
    let mut server = server(100, 1000);
    let flood: Vec<Name> = (0..10).map(|_| server.arrive(0, 25)).collect();
    let quiet = server.arrive(1, 25);
    let quiet_again = server.arrive(1, 25);
    server.release(flood[0]);
    assert_eq!(server.started.last(), Some(&quiet), "it has none in flight");
    server.release(flood[1]);
    assert_eq!(server.started.last(), Some(&flood[4]), "it had the claim, which was used up");
    server.release(flood[2]);
    assert_eq!(server.started.last(), Some(&quiet_again), "25 units against 50");
}

#[test]
fn room_for_several_is_divided() {
    let mut server = server(100, 1000);
    let running = server.arrive(2, 100);
    let first: Vec<Name> = (0..4).map(|_| server.arrive(0, 25)).collect();
    let second: Vec<Name> = (0..4).map(|_| server.arrive(1, 25)).collect();
    server.release(running);
    assert_eq!(server.started[1..], [first[0], second[0], first[1], second[1]]);
}

#[test]
fn a_claim_is_met_however_many_come_before_it_in_turn() {
    let mut server = Audited::new(Capacity { units: 100, depth: 10_000, ..BOUNDS }, 102);
    server.arrive(0, 10);
    let running = server.arrive(1, 85);
    let claimed = server.arrive(0, 10);
    // Each has nothing in flight, and is more than may pass.
    (2..102).for_each(|function| {
        server.arrive(function, 20);
    });
    server.release(running);
    assert_eq!(server.started[2], claimed);
    assert_eq!(server.running.len(), 6, "then the others");
}

#[test]
fn a_large_one_is_passed_by_its_own_units_and_no_more() {
    let mut server = server(100, 1000);
    let running = server.arrive(0, 60);
    let large = server.arrive(1, 80);
    let passing = server.arrive(2, 40);
    assert_eq!(server.started, [running, passing], "there is room beside the claim");
    server.release(passing);
    let passing = server.arrive(2, 40);
    server.release(passing);
    assert_eq!(server.started, [running, 2, passing], "80 units passed");
    let late = server.arrive(2, 1);
    assert!(server.waiting.contains_key(&late) && server.waiting.contains_key(&large), "40 units are kept for it");
    server.release(running);
    assert_eq!(server.started[3..], [large, late]);
}

#[test]
fn a_claim_ends_with_who_has_it() {
    let mut server = server(100, 1000);
    let running = server.arrive(0, 90);
    let large = server.arrive(1, 11);
    let next = server.arrive(1, 5);
    let last = server.arrive(2, 20);
    server.leave(large);
    assert_eq!(server.started, [running, next]);
    server.release(next);
    server.release(running);
    assert_eq!(server.started, [running, next, last]);
}

#[test]
fn who_floods_the_queue_makes_room_for_others() {
    let mut server = server(10, 40);
    server.arrive(0, 10);
    let flood: Vec<Name> = (0..4).map(|_| server.arrive(0, 10)).collect();
    let full = |requested| Refused::QueueFull { invocations: 4, queued: 40, requested, depth: 40 };
    let another = server.arrive(0, 10);
    assert_eq!(server.refused, [(another, full(10))], "not for its own");
    let quiet = server.arrive(1, 5);
    assert_eq!(server.refused[1..], [(flood[3], full(10))], "its latest goes");
    assert!(server.waiting.contains_key(&quiet));
    server.arrive(1, 10);
    let refused = Refused::QueueFull { invocations: 4, queued: 35, requested: 10, depth: 40 };
    assert_eq!(server.refused[2..], [(flood[2], refused)]);
    let greedy = server.arrive(1, 10);
    assert_eq!(
        server.refused[3..],
        [(greedy, refused)],
        "20 of one and 15 of the other wait: no more than a like part"
    );
}

#[test]
fn the_number_of_invocations_is_bounded_too() {
    let mut server = Audited::new(Capacity { units: 100, depth: 100, invocations: 2, ..BOUNDS }, 4);
    let first = server.arrive(0, 1);
    server.arrive(1, 1);
    let third = server.arrive(2, 1);
    assert_eq!(server.running.len(), 2);
    server.release(first);
    assert!(server.running.contains_key(&third));
}

#[test]
fn so_many_wait_whatever_their_units() {
    let mut server = Audited::new(Capacity { units: 100, depth: 20, depth_invocations: 3, ..BOUNDS }, 4);
    let running = server.arrive(0, 100);
    let flood: Vec<Name> = (0..3).map(|_| server.arrive(0, 50)).collect();
    let full = |requested| Refused::QueueFull { invocations: 3, queued: 150, requested, depth: 20 };
    let another = server.arrive(0, 1);
    assert_eq!(server.refused, [(another, full(1))], "three wait, with more units than the depth");
    let quiet = server.arrive(1, 20);
    assert_eq!(server.refused[1..], [(flood[2], full(50))], "one goes for one");
    assert!(server.waiting.contains_key(&quiet));
    server.release(running);
    assert_eq!(server.started[1..], [flood[0], quiet], "50 units beside 20; the next 50 do not fit");
    (0..5).for_each(|_| {
        server.arrive(2, 40);
    });
    assert_eq!((server.waiting.len(), server.refused.len()), (3, 5), "two of them wait beside one");
}
