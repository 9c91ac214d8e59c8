use proptest::prelude::*;

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn what_is_reserved_comes_back() {
    let budget = ByteBudget::new(100 * KIB);
    let client = budget.client();
    let mut first = client.reserve(40 * KIB).unwrap();
    assert!(client.reserve(27 * KIB).is_none(), "more than two thirds");
    first.add(client.reserve(1).unwrap());
    assert_eq!((first.bytes(), budget.held()), (40 * KIB + 1, 40 * KIB + 1));
    let mut nothing = client.reserve(0).unwrap();
    nothing.add(first);
    drop(nothing);
    assert_eq!(budget.held(), 0);
    drop(client.reserve(66 * KIB).expect("nothing is held any more"));
}

#[test]
fn who_shares_a_budget_with_nobody_has_all_of_it() {
    let budget = ByteBudget::new(MIB);
    let client = budget.only_client();
    let all = client.reserve(MIB).unwrap();
    assert!(client.reserve(1).is_none());
    drop(all);
    assert_eq!(budget.held(), 0);
}

#[test]
fn clients_on_many_threads_give_back_what_they_took() {
    let budget = ByteBudget::new(MIB);
    let clients = [budget.client(), budget.client()];
    std::thread::scope(|scope| {
        for client in clients.iter().chain(&clients) {
            let budget = &budget;
            scope.spawn(move || {
                let mut held = std::collections::VecDeque::new();
                for bytes in (1..20_000).map(|turn| turn * 7919 % (100 * KIB)) {
                    held.extend(client.reserve(bytes));
                    assert!(budget.held() <= MIB);
                    held.truncate(usize::try_from(bytes % 16).unwrap());
                }
            });
        }
    });
    assert_eq!(budget.held(), 0);
}

/// What clients do: each takes some bytes, or gives back the oldest that it has.
fn steps() -> impl Strategy<Value = Vec<(usize, Option<u64>)>> {
    prop::collection::vec((0..4_usize, prop::option::weighted(0.8, 0..200 * KIB)), 0..300)
}

proptest! {
    #[test]
    fn no_client_takes_what_others_need(steps in steps(), total in 1..MIB) {
        let budget = ByteBudget::new(total);
        let mut clients: Vec<_> = (0..4).map(|_| (budget.client(), Vec::<Reservation>::new())).collect();
        for (who, step) in steps {
            let own = |reserved: &[Reservation]| reserved.iter().map(Reservation::bytes).sum::<u64>();
            let before = clients.iter().map(|(_, reserved)| own(reserved)).sum::<u64>();
            prop_assert_eq!(budget.held(), before);
            let (client, reserved) = &mut clients[who];
            let Some(bytes) = step else {
                if !reserved.is_empty() {
                    reserved.remove(0);
                }
                continue;
            };
            let fits = before + bytes <= total && own(reserved) + bytes <= (total - before - bytes) * TIMES_FREE;
            let granted = client.reserve(bytes);
            prop_assert_eq!(granted.is_some(), fits || bytes == 0);
            prop_assert!(granted.is_some() || before + bytes > total / 2, "half of it is for whoever comes");
            reserved.extend(granted);
            prop_assert!(budget.held() <= total);
        }
        // Whatever they hold, something is free, and who has nothing yet gets most of it.
        let free = total - budget.held();
        prop_assert!(free > 0);
        let newcomer = budget.client();
        prop_assert!(newcomer.reserve(free * TIMES_FREE / (TIMES_FREE + 1)).is_some());
        drop(clients);
        prop_assert_eq!(budget.held(), 0);
    }

    #[test]
    fn the_greediest_leaves_a_third_and_a_second_one_gets_most_of_it(total in 100 * KIB..MIB, piece in 1..20 * KIB) {
        let budget = ByteBudget::new(total);
        let take = |client: &ClientBudget| std::iter::from_fn(|| client.reserve(piece)).collect::<Vec<_>>();
        let sum = |reserved: &[Reservation]| reserved.iter().map(Reservation::bytes).sum::<u64>();
        let (first, second) = (budget.client(), budget.client());
        let held = take(&first);
        prop_assert!(sum(&held) * 3 <= total * 2 && (sum(&held) + piece) * 3 > total * 2);
        let others = take(&second);
        prop_assert!((sum(&others) + piece) * 9 > total * 2);
        prop_assert!(first.reserve(piece).is_none(), "it has most, and gets no more");
        drop(held);
        prop_assert!(second.reserve(piece).is_some());
    }

    #[test]
    fn the_parts_are_never_more_than_the_whole(memory in 64 * MIB..1 << 40, connections in 1_usize..1_000_000) {
        let budgets = Budgets::new(memory, connections);
        prop_assert!(budgets.total() <= (memory / SHARE).max(LEAST));
        prop_assert!(budgets.connections >= 1 && budgets.connections <= connections);
        prop_assert!(budgets.bodies.total() >= 256 << 10);
    }
}
