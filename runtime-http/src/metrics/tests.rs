use std::time::Duration;

use super::*;

#[test]
fn labels_of_functions_that_are_gone_are_others() {
    let metrics = Metrics::new();
    let kept = metrics.function("kept");
    let held: Vec<_> = (1..MOST_FUNCTIONS).map(|index| metrics.function(&format!("f{index}"))).collect();
    metrics.function("too many");
    let text = || String::from_utf8(metrics.render()).unwrap();
    held[0].observe(503, true, Duration::ZERO, None, None);
    assert!(text().contains("f1\"") && !text().contains("too many"));
    drop(held);
    metrics.function("next");
    assert!(text().contains("next") && !text().contains("f1\""), "{}", text());
    assert!(Arc::ptr_eq(&kept, &metrics.function("kept")));
}
