use std::time::Duration;

use tokio::task::JoinHandle;

use super::*;

fn mebibytes(units: u64) -> MemoryRequest {
    MemoryRequest::from_bytes(units << 20).unwrap()
}

fn admission(units: u64, depth: u64) -> Arc<Admission> {
    Admission::new(Capacity { units, depth, depth_invocations: 0, invocations: 100 }, Arc::new(Metrics::new()))
}

fn function() -> Arc<Share> {
    Arc::new(Share::new())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A request that waits already when this returns, or has its permit.
async fn comes(admission: &Arc<Admission>, function: &Arc<Share>, units: u64) -> JoinHandle<Result<Permit, Refused>> {
    let (admission, function) = (admission.clone(), function.clone());
    let task = tokio::spawn(async move { admission.admit(&function, mebibytes(units), soon()).await });
    tokio::task::yield_now().await;
    task
}

#[tokio::test]
async fn capacity_depth_and_deadline() {
    let admission = admission(100, 50);
    let function = function();
    let first = admission.admit(&function, mebibytes(100), soon()).await.unwrap();
    assert_eq!(
        admission.admit(&function, mebibytes(101), soon()).await.unwrap_err(),
        Refused::ExceedsCapacity { requested: 101, capacity: 100 }
    );
    assert_eq!(
        admission.admit(&function, mebibytes(51), soon()).await.unwrap_err(),
        Refused::QueueFull { invocations: 0, queued: 0, requested: 51, depth: 50 }
    );
    let late = admission.admit(&function, mebibytes(50), Instant::now()).await;
    assert_eq!(late.unwrap_err(), Refused::QueueTimeout);
    assert_eq!(admission.snapshot().waiting_units, 0);
    drop(first);
    assert_eq!(admission.in_flight(), 0);
    assert_eq!(function.units(), 0);
    assert_eq!(admission.metrics.admitted.get(), 1);
}

#[tokio::test]
async fn a_changed_capacity_starts_who_fits_and_refuses_who_never_will() {
    let admission = admission(100, 1000);
    let function = function();
    let capacity = |units| Capacity { units, depth: 1000, depth_invocations: 0, invocations: 100 };
    let first = admission.admit(&function, mebibytes(60), soon()).await.unwrap();
    let large = comes(&admission, &function, 90).await;
    let small = comes(&admission, &function, 50).await;
    admission.set_capacity(capacity(80));
    assert_eq!(large.await.unwrap().unwrap_err(), Refused::ExceedsCapacity { requested: 90, capacity: 80 });
    assert_eq!((admission.in_flight(), admission.snapshot().waiting_units), (1, 50), "60 of 80 are in flight");
    admission.set_capacity(capacity(110));
    let small = small.await.unwrap().unwrap();
    admission.set_capacity(capacity(40));
    assert_eq!((admission.in_flight(), admission.snapshot().in_flight_units), (2, 110), "what runs stays");
    let next = comes(&admission, &function, 40).await;
    drop(first);
    assert_eq!(admission.snapshot().waiting_units, 40, "50 of 40 are in flight");
    drop(small);
    drop(next.await.unwrap().unwrap());
    admission.idle().await;
}

#[tokio::test]
async fn a_waiter_that_leaves_frees_its_place_and_the_next_may_fit() {
    let admission = admission(100, 1000);
    let function = function();
    let first = admission.admit(&function, mebibytes(60), soon()).await.unwrap();
    let large = comes(&admission, &function, 80).await;
    let small = comes(&admission, &function, 10).await;
    assert_eq!(admission.in_flight(), 1, "40 units are free, but the large one came before, for the same function");
    assert_eq!(admission.snapshot().waiting_units, 90);
    large.abort();
    let _ = large.await;
    let small = small.await.unwrap().unwrap();
    assert_eq!(admission.in_flight(), 2);
    drop((first, small));
    admission.idle().await;
    let snapshot = admission.snapshot();
    assert_eq!((snapshot.in_flight_units, snapshot.waiting_units, snapshot.waiting_invocations), (0, 0, 0));
}

#[tokio::test]
async fn a_permit_whose_waiter_left_before_it_saw_it_goes_to_the_next() {
    let admission = admission(10, 1000);
    let function = function();
    let running = admission.admit(&function, mebibytes(10), soon()).await.unwrap();
    let gone = comes(&admission, &function, 10).await;
    let next = comes(&admission, &function, 10).await;
    // Its task does not run between these.
    drop(running);
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    drop(next.await.unwrap().unwrap());
    admission.idle().await;
}

#[tokio::test]
async fn a_displaced_waiter_is_told() {
    let admission = admission(10, 20);
    let (flood, quiet) = (function(), function());
    let running = admission.admit(&flood, mebibytes(10), soon()).await.unwrap();
    let first = comes(&admission, &flood, 10).await;
    let latest = comes(&admission, &flood, 10).await;
    let other = comes(&admission, &quiet, 10).await;
    let refused = Refused::QueueFull { invocations: 2, queued: 20, requested: 10, depth: 20 };
    assert_eq!(latest.await.unwrap().unwrap_err(), refused);
    drop(running);
    drop(first.await.unwrap().unwrap());
    drop(other.await.unwrap().unwrap());
}

#[tokio::test]
async fn an_opened_gate_starts_who_waits_and_a_closed_one_lets_one_through_when_nothing_runs() {
    let admission = admission(100, 1000);
    let function = function();
    admission.set_gate(Gate::Cpu, false);
    admission.set_gate(Gate::Memory, false);
    assert_eq!(admission.snapshot().closed_gates, [Gate::Cpu, Gate::Memory]);
    let only = admission.admit(&function, mebibytes(10), soon()).await.unwrap();
    let second = comes(&admission, &function, 10).await;
    let third = comes(&admission, &function, 10).await;
    assert_eq!(admission.in_flight(), 1);
    drop(only);
    let second = second.await.unwrap().unwrap();
    assert_eq!(admission.in_flight(), 1, "again one");
    admission.set_gate(Gate::Cpu, true);
    assert_eq!(admission.snapshot().waiting_invocations, 1, "the other is still closed");
    let gauge = |gate: Gate| admission.metrics.gate_closed.with_label_values(&[gate.name()]).get();
    assert_eq!((gauge(Gate::Cpu), gauge(Gate::Memory)), (0, 1));
    // No release wakes it: the gate does.
    admission.set_gate(Gate::Memory, true);
    let third = third.await.unwrap().unwrap();
    assert_eq!(admission.in_flight(), 2);
    drop((second, third));
}

#[tokio::test]
async fn a_lowered_ceiling_lets_one_through_when_nothing_runs_and_starts_who_waits_when_it_rises() {
    let admission = admission(100, 1000);
    let function = function();
    admission.set_ceiling(25);
    let large = admission.admit(&function, mebibytes(90), soon()).await.unwrap();
    let waiting = [comes(&admission, &function, 10).await, comes(&admission, &function, 10).await];
    let last = comes(&admission, &function, 10).await;
    assert_eq!((admission.in_flight(), admission.metrics.admissible_units.get()), (1, 25));
    drop(large);
    let [first, second] = waiting;
    let running = [first.await.unwrap().unwrap(), second.await.unwrap().unwrap()];
    assert_eq!(admission.in_flight(), 2, "a third does not fit");
    admission.set_ceiling(1000);
    assert_eq!(admission.in_flight(), 3);
    let last = last.await.unwrap().unwrap();
    let refused = Refused::ExceedsCapacity { requested: 101, capacity: 100 };
    assert_eq!(admission.admit(&function, mebibytes(101), soon()).await.unwrap_err(), refused);
    drop((running, last));
}

#[tokio::test]
async fn draining_refuses_waiting_and_new() {
    let admission = admission(10, 1000);
    let function = function();
    let running = admission.admit(&function, mebibytes(10), soon()).await.unwrap();
    let waiting = comes(&admission, &function, 10).await;
    admission.drain();
    assert_eq!(waiting.await.unwrap().unwrap_err(), Refused::Draining);
    assert_eq!(admission.admit(&function, mebibytes(1), soon()).await.unwrap_err(), Refused::Draining);
    assert!(admission.snapshot().draining);
    drop(running);
    admission.idle().await;
}

/// Many tasks on several threads, some of which give up at any moment: all that was occupied comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_permit_is_lost() {
    let admission = admission(100, 2000);
    let functions = [function(), function(), function()];
    let tasks: Vec<_> = (0..600_u64)
        .map(|number| {
            let (admission, function) = (admission.clone(), functions[number as usize % 3].clone());
            tokio::spawn(async move {
                let deadline = Instant::now() + Duration::from_micros(number * 100 % 7000);
                if let Ok(permit) = admission.admit(&function, mebibytes(1 + number % 60), deadline).await {
                    tokio::time::sleep(Duration::from_micros(number * 37 % 1000)).await;
                    drop(permit);
                }
                admission.set_gate(Gate::Cpu, number % 5 != 0);
            })
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        if number % 7 == 0 {
            task.abort();
        }
        let _ = task.await;
    }
    admission.set_gate(Gate::Cpu, true);
    admission.idle().await;
    let Snapshot { in_flight_units, waiting_invocations, waiting_units, .. } = admission.snapshot();
    assert_eq!((in_flight_units, waiting_invocations, waiting_units), (0, 0, 0));
    assert_eq!(functions.map(|function| function.units()), [0; 3]);
    assert_eq!(admission.metrics.in_flight_units.get(), 0);
}
