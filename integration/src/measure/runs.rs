//! Figures of several runs, told by their median.

/// One run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// CPU seconds, user and system, all threads.
    pub cpu_seconds: f64,
    /// Seconds by the clock.
    pub seconds: f64,
}

/// The middle value; 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len() / 2, sorted.len() % 2) {
        (0, 0) => 0.0,
        (middle, 0) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        (middle, _) => sorted[middle],
    }
}

/// The median of CPU seconds.
pub fn median_cpu(runs: &[Run]) -> f64 {
    median(runs.iter().map(|run| run.cpu_seconds))
}

/// The median of seconds by the clock.
pub fn median_seconds(runs: &[Run]) -> f64 {
    median(runs.iter().map(|run| run.seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_middle() {
        let check = |values: &[f64], expected: f64| assert!((median(values.iter().copied()) - expected).abs() < 1e-9);
        check(&[], 0.0);
        check(&[3.0], 3.0);
        check(&[9.0, 1.0, 5.0], 5.0);
        check(&[9.0, 1.0, 5.0, 7.0], 6.0);
    }
}
