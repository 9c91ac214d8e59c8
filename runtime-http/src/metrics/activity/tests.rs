use super::*;

#[test]
fn counts_of_functions_that_are_gone_stay_in_the_sum() {
    let activities = Activities::default();
    let name: Arc<str> = "one".into();
    let one = activities.of(&name);
    let usage = |micros, memory_peak| {
        let (cpu, execution) = (Duration::from_micros(micros), Duration::from_micros(2 * micros));
        Usage { cpu, execution, memory_peak, ..Usage::default() }
    };
    one.observe(false, Duration::from_micros(50), Some(&usage(40, 7)));
    one.observe(true, Duration::from_secs(100), Some(&usage(0, 5)));
    let totals = one.totals();
    assert_eq!((totals.calls(), totals.errors, totals.cpu_us, one.memory_peak()), (2, 1, 40, 7));
    assert_eq!(totals.executing_us, 80);
    assert_eq!((totals.latencies[0], totals.latencies[CLASSES - 1]), (1, 1));
    assert_eq!(activities.all().len(), 1);
    drop(one);
    assert_eq!((activities.all().len(), activities.gone()), (0, totals));
    assert_eq!(activities.of(&name).totals(), Totals::default());
}

#[test]
fn so_many_stay_when_their_functions_go() {
    let activities = Activities::default();
    activities.keep(10);
    let of = |number: usize| activities.of(&format!("f{number}").into());
    let held = of(0);
    for number in (0..100).chain(90..100) {
        of(number).observe(false, Duration::ZERO, None);
    }
    let mut names: Vec<String> = activities.all().iter().map(|one| one.name().to_string()).collect();
    names.sort();
    assert_eq!(names, ["f0", "f90", "f91", "f92", "f93", "f94", "f95", "f96", "f97", "f98", "f99"]);
    assert_eq!((of(99).totals().calls(), held.totals().calls(), activities.gone().calls()), (2, 1, 89));
}

#[test]
fn quantiles_are_bounds_of_classes() {
    let mut totals = Totals::default();
    assert_eq!(totals.quantile(0.5), None);
    totals.latencies[0] = 98;
    totals.latencies[9] = 1;
    totals.latencies[CLASSES - 1] = 1;
    assert_eq!(
        [0.0, 0.5, 0.98, 0.99, 1.0].map(|share| totals.quantile(share)),
        [0.0001, 0.0001, 0.0001, 0.1, A_DAY].map(Some)
    );
}

#[test]
fn rates_follow_what_happens_and_forget_it() {
    let begun = Instant::now();
    let mut averages = Averages::new(begun);
    let mut totals = Totals { cpu_us: 500_000, ..Totals::default() };
    totals.latencies[3] = 1000;
    // Nobody has looked for long.
    let start = begun + Duration::from_secs(3600);
    averages.restart(&totals, start);
    totals.latencies[3] += 300;
    totals.cpu_us += 1_000_000;
    totals.executing_us += 6_000_000;
    assert_eq!(averages.update(&totals, start + UPDATE / 2), Rates::default(), "too soon");
    // The first one is what has happened since.
    let first = averages.update(&totals, start + Duration::from_secs(2));
    assert!((first.calls - 150.0).abs() < 0.01 && first.errors == 0.0, "{first:?}");
    assert!((first.cpu_cores - 0.5).abs() < 1e-4 && (first.executing - 3.0).abs() < 1e-3, "{first:?}");
    let later = averages.update(&totals, start + Duration::from_secs(7));
    assert!((later.calls / first.calls - (-1.0_f64).exp()).abs() < 0.01, "{later:?}");
    let after = (66..300).map(|second| averages.update(&totals, start + Duration::from_secs(second))).last();
    assert_eq!(after, Some(Rates::default()));
}
