//! Reads a `/metrics` page (Prometheus' text format, as far as our own programs use it).

/// The sum of all series of a metric.
pub fn sum(page: &str, name: &str) -> f64 {
    sum_where(page, name, &[])
}

/// The sum of those series of a metric that carry all these labels.
pub fn sum_where(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    page.lines().filter_map(|line| value(line, name, labels)).fold(0.0, |sum, value| sum + value)
}

fn value(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let (written, value) = match rest.strip_prefix('{') {
        Some(labelled) => labelled.rsplit_once("} ")?,
        None => ("", rest.strip_prefix(' ')?),
    };
    let carried = |&(key, value): &(&str, &str)| {
        let label = format!("{key}=\"{value}\"");
        written.starts_with(&label) || written.contains(&format!(",{label}"))
    };
    if !labels.iter().all(carried) {
        return None;
    }
    value.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_series() {
        let page = "# TYPE lines counter\nlines_total{namespace=\"a\",x=\"}\"} 3\nlines_total{namespace=\"b\"} 4.5\n\
                    lines_total_more 100\nplain 7\n# EOF\n";
        assert!((sum(page, "lines_total") - 7.5).abs() < 1e-9);
        assert!((sum_where(page, "lines_total", &[("namespace", "a")]) - 3.0).abs() < 1e-9);
        assert!((sum(page, "plain") - 7.0).abs() < 1e-9);
        assert!(sum(page, "none").abs() < 1e-9);
    }
}
