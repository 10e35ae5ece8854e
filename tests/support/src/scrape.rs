//! `/metrics`, read once.

use std::collections::BTreeMap;

/// What a server counted at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub(crate) fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| line.rsplit_once(' '));
        Metrics(samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// One sample, by its name and labels as they stand in the text: `pulse_proxies{state="IN_SYNC"}`. What was
    /// never counted is 0.
    pub fn value(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// Whether there is a sample whose name begins so.
    pub fn has(&self, beginning: &str) -> bool {
        self.0.keys().any(|name| name.starts_with(beginning))
    }

    /// The bound below which this share of a histogram's values lies: the upper end of the bucket that holds it.
    /// `None` without values, or if it lies beyond the last bound.
    pub fn quantile(&self, histogram: &str, share: f64) -> Option<f64> {
        let count = self.value(&format!("{histogram}_count"));
        let prefix = format!("{histogram}_bucket{{le=\"");
        let buckets = self.0.iter().filter_map(|(name, below)| {
            let bound: f64 = name.strip_prefix(&prefix)?.strip_suffix("\"}")?.parse().ok()?;
            (*below >= share * count && bound.is_finite()).then_some(bound)
        });
        buckets.min_by(f64::total_cmp).filter(|_| count > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let metrics = Metrics::parse(
            "# TYPE t histogram\nt_count 4\nt_bucket{le=\"0.1\"} 2\nt_bucket{le=\"1.0\"} 3\nt_bucket{le=\"+Inf\"} 4\n",
        );
        assert_eq!(metrics.quantile("t", 0.5), Some(0.1));
        assert_eq!(metrics.quantile("t", 0.75), Some(1.0));
        assert_eq!(metrics.quantile("t", 0.99), None);
        assert_eq!(metrics.quantile("other", 0.5), None);
    }
}
