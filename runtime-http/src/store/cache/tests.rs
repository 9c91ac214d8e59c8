use proptest::prelude::*;

use super::*;
use crate::artifacts::file_identity::FileIdentity;

type TestCache = Cache<u32, &'static str, u32>;

fn version(file: &str, content: u64) -> FileVersion {
    FileVersion { file: file.into(), module: FileIdentity::numbered(content), settings: None }
}

fn name(file: &str) -> ModuleName {
    file.parse().unwrap()
}

/// Starts loading, which must be due.
fn start(cache: &mut TestCache, version: &FileVersion, waiting: u32, now: Instant) -> Ticket {
    assert_eq!(cache.look_up(&name(&version.file), version, now), LookUp::Missing);
    cache.start(version, waiting, now)
}

fn ready(version: &FileVersion, function: u32, bytes: usize) -> Loaded<u32, &'static str> {
    Loaded::Ready { version: version.clone(), function, bytes }
}

#[test]
fn all_wait_for_one_loading() {
    let (mut cache, now, first) = (TestCache::default(), Instant::now(), version("f", 1));
    let ticket = start(&mut cache, &first, 7, now);
    for _ in 0..3 {
        assert_eq!(cache.look_up(&name("f"), &first, now), LookUp::Loading(7));
    }
    cache.finish(&ticket, ready(&first, 42, 10), now);
    assert_eq!(cache.look_up(&name("f"), &first, now), LookUp::Ready(42));
    assert_eq!((cache.bytes(), cache.functions()), (10, 1));
}

#[test]
fn a_changed_file_is_loaded_anew_and_the_older_loading_changes_nothing() {
    let (mut cache, now) = (TestCache::default(), Instant::now());
    let (first, second) = (version("f", 1), version("f", 2));
    let old = start(&mut cache, &first, 1, now);
    let new = start(&mut cache, &second, 2, now);
    cache.finish(&old, ready(&first, 41, 10), now);
    assert_eq!(cache.look_up(&name("f"), &second, now), LookUp::Loading(2));
    cache.finish(&new, ready(&second, 42, 20), now);
    assert_eq!(cache.look_up(&name("f"), &second, now), LookUp::Ready(42));
    assert_eq!(cache.look_up(&name("f"), &first, now), LookUp::Missing);
    assert_eq!(cache.bytes(), 20);
    // Neither does finishing twice.
    cache.finish(&new, Loaded::Changing, now);
    assert_eq!(cache.look_up(&name("f"), &second, now), LookUp::Ready(42));
}

#[test]
fn a_function_takes_the_place_of_one_of_the_same_version() {
    let (mut cache, now) = (TestCache::default(), Instant::now());
    let (first, second) = (version("f", 1), version("f", 2));
    let ticket = start(&mut cache, &first, 1, now);
    assert!(!cache.swap(&first, 42, 5), "it is not there yet");
    cache.finish(&ticket, ready(&first, 41, 10), now);
    assert_eq!(cache.look_up(&name("f"), &first, now), LookUp::Ready(41));
    assert!(cache.swap(&first, 42, 5) && !cache.swap(&second, 43, 1));
    assert_eq!(cache.just_looked_at(&name("f"), now), None, "whoever comes next gets the new one");
    assert_eq!(cache.look_up(&name("f"), &first, now), LookUp::Ready(42));
    assert_eq!((cache.bytes(), cache.functions()), (5, 1));
}

#[test]
fn only_what_the_content_made_fail_stays_failed() {
    let (mut cache, now, first) = (TestCache::default(), Instant::now(), version("f", 1));
    let ticket = start(&mut cache, &first, 1, now);
    cache.finish(&ticket, Loaded::Invalid("invalid"), now);
    let year = Duration::from_secs(365 * 86_400);
    assert_eq!(cache.look_up(&name("f"), &first, now + year), LookUp::Failed("invalid"));
    assert_eq!(cache.look_up(&name("f"), &version("f", 2), now), LookUp::Missing);
}

#[test]
fn what_may_pass_is_tried_again_less_and_less_often() {
    let (mut cache, mut now, first) = (TestCache::default(), Instant::now(), version("f", 1));
    for seconds in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
        let ticket = start(&mut cache, &first, 1, now);
        cache.finish(&ticket, Loaded::Failed("busy"), now);
        now += Duration::from_secs(seconds) - Duration::from_millis(1);
        assert_eq!(cache.look_up(&name("f"), &first, now), LookUp::Failed("busy"));
        now += Duration::from_millis(1);
    }
    // Another version begins from the start, and so does this one once it was loaded.
    let changed = version("f", 2);
    for (function, version) in [(1, &changed), (2, &first)] {
        let ticket = start(&mut cache, version, 1, now);
        cache.finish(&ticket, ready(version, function, 1), now);
        cache.remove("f");
        let ticket = start(&mut cache, version, 1, now);
        cache.finish(&ticket, Loaded::Failed("busy"), now);
        assert_eq!(cache.look_up(&name("f"), version, now + Duration::from_secs(1)), LookUp::Missing);
    }
    // What was changing is looked at again at once.
    let ticket = start(&mut cache, &version("g", 1), 1, now);
    cache.finish(&ticket, Loaded::Changing, now);
    assert_eq!(cache.look_up(&name("g"), &version("g", 1), now), LookUp::Missing);
}

#[test]
fn a_look_serves_for_a_moment_and_not_for_what_is_gone() {
    let (mut cache, now, first) = (TestCache::default(), Instant::now(), version("f.wasm", 1));
    let ticket = start(&mut cache, &first, 1, now);
    cache.finish(&ticket, ready(&first, 42, 1), now);
    assert_eq!(cache.just_looked_at(&name("f"), now), None);
    assert_eq!(cache.look_up(&name("f"), &first, now), LookUp::Ready(42));
    assert_eq!(cache.just_looked_at(&name("f"), now), Some(42));
    assert_eq!(cache.just_looked_at(&name("f"), now + LOOK_SERVES), None);
    assert!(cache.remove("f.wasm"));
    assert_eq!(cache.just_looked_at(&name("f"), now), None);
}

#[test]
fn the_least_recently_used_go_first() {
    let (mut cache, now) = (TestCache::default(), Instant::now());
    for (index, file) in ["a", "b", "c"].iter().enumerate() {
        let version = version(file, 1);
        let ticket = start(&mut cache, &version, 1, now);
        cache.finish(&ticket, ready(&version, index as u32, 10), now);
    }
    let loading = start(&mut cache, &version("loading", 1), 1, now);
    assert_eq!(cache.look_up(&name("a"), &version("a", 1), now), LookUp::Ready(0));
    cache.make_room(20, 10, "c");
    assert_eq!(cache.look_up(&name("b"), &version("b", 1), now), LookUp::Missing);
    assert_eq!((cache.bytes(), cache.functions()), (20, 2));
    // The newest stays even if it is too large by itself; what is being loaded stays in any case.
    cache.make_room(0, 0, "c");
    assert_eq!(cache.look_up(&name("c"), &version("c", 1), now), LookUp::Ready(2));
    assert_eq!(cache.look_up(&name("loading"), &version("loading", 1), now), LookUp::Loading(1));
    cache.finish(&loading, Loaded::Changing, now);
    assert_eq!(cache.remove_idle(Duration::from_secs(60), now + Duration::from_secs(61)), 1);
    assert_eq!((cache.bytes(), cache.functions(), cache.iter().count()), (0, 0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    LookUp { file: u8, content: u64 },
    Finish { loading: usize, end: u8, bytes: usize },
    MakeRoom { bytes: usize, entries: usize },
    Remove { file: u8 },
    Wait { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_u8, 0..3_u64).prop_map(|(file, content)| Step::LookUp { file, content }),
        4 => (0..4_usize, 0..4_u8, 0..100_usize).prop_map(|(loading, end, bytes)| Step::Finish { loading, end, bytes }),
        1 => (0..200_usize, 0..4_usize).prop_map(|(bytes, entries)| Step::MakeRoom { bytes, entries }),
        1 => (0..4_u8).prop_map(|file| Step::Remove { file }),
        1 => (0..100_u64).prop_map(|seconds| Step::Wait { seconds }),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever happens in whatever order: bytes add up, one version of a file is loaded by one at a time, what is found is of the version that
    /// was asked for, and whoever asks long enough after the last loading has ended gets it loaded or a reason that is the content's.
    #[test]
    fn sequences(steps in steps()) {
        let mut cache: Cache<(String, u64), u8, u64> = Cache::default();
        let mut now = Instant::now();
        let mut loadings: Vec<(Ticket, FileVersion, u64)> = Vec::new();
        let mut started = 0;
        for step in steps {
            match step {
                Step::LookUp { file, content } => {
                    let version = version(&format!("f{file}"), content);
                    match cache.look_up(&name(&version.file), &version, now) {
                        LookUp::Ready(function) => prop_assert_eq!(function, (version.file, content)),
                        LookUp::Loading(waiting) => {
                            let awaited = loadings.iter().find(|(_, _, number)| *number == waiting);
                            prop_assert!(awaited.is_some_and(|(_, of, _)| *of == version));
                        }
                        LookUp::Failed(end) => prop_assert!(end == 1 || end == 2),
                        LookUp::Missing => {
                            started += 1;
                            let ticket = cache.start(&version, started, now);
                            loadings.push((ticket, version, started));
                        }
                    }
                }
                Step::Finish { loading, end, bytes } if loading < loadings.len() => {
                    let (ticket, version, _) = loadings.remove(loading);
                    let function = (version.file.clone(), version.module.number());
                    cache.finish(&ticket, match end {
                        0 => Loaded::Ready { version, function, bytes },
                        1 => Loaded::Invalid(1),
                        2 => Loaded::Failed(2),
                        _ => Loaded::Changing,
                    }, now);
                }
                Step::Finish { .. } => {}
                Step::MakeRoom { bytes, entries } => {
                    cache.make_room(bytes, entries, "f0");
                    let is_kept = |(file, state): (&str, &State<_, _, _>)| {
                        file == "f0" || matches!(state, State::Loading { .. })
                    };
                    prop_assert!(cache.bytes() <= bytes || cache.iter().all(is_kept));
                    prop_assert!(cache.iter().count() <= entries || cache.iter().all(is_kept));
                }
                Step::Remove { file } => {
                    cache.remove(&format!("f{file}"));
                }
                Step::Wait { seconds } => now += Duration::from_secs(seconds),
            }
            let sum: usize =
                cache.iter().map(|(_, state)| if let State::Ready { bytes, .. } = state { *bytes } else { 0 }).sum();
            prop_assert_eq!(cache.bytes(), sum);
        }
        for (ticket, _, _) in &loadings {
            cache.finish(ticket, Loaded::Failed(2), now);
        }
        now += RETRY.1;
        for (file, content) in (0..4).flat_map(|file| (0..3).map(move |content| (file, content))) {
            let version = version(&format!("f{file}"), content);
            let found = cache.look_up(&name(&version.file), &version, now);
            prop_assert!(matches!(found, LookUp::Missing | LookUp::Ready(_) | LookUp::Failed(1)), "{found:?}");
        }
    }
}
