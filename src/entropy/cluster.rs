//! Clusters of segments by one number each: k-means in one dimension (S. Lloyd, "Least squares quantization in PCM",
//! 1982). It takes a sort of the numbers and no histograms.

/// Scratch memory of the clustering.
#[derive(Debug, Default)]
pub struct Clusters {
    sorted: Vec<u64>,
    /// Sums of the first 0, 1, 2, … of `sorted`.
    totals: Vec<u64>,
}

impl Clusters {
    /// Sets the cluster of each of `sums`, 0 to `n_clusters` − 1 by rising sum; some may stay empty. The means are those
    /// of one in `one_in` sums.
    pub fn assign<T: Copy + Into<u64> + TryFrom<u64> + PartialOrd>(
        &mut self,
        sums: &[T],
        one_in: usize,
        n_clusters: usize,
        ids: &mut [u8],
    ) {
        self.sorted.clear();
        self.sorted.extend(sums.iter().step_by(one_in.max(1)).map(|&sum| sum.into()));
        self.sorted.sort_unstable();
        let n = self.sorted.len();
        if n == 0 {
            return;
        }
        self.totals.clear();
        self.totals.push(0);
        let running = self.sorted.iter().scan(0, |total, sum| {
            *total += sum;
            Some(*total)
        });
        self.totals.extend(running);
        let n_clusters = n_clusters.max(1);
        let mut bounds: Vec<usize> = (0..=n_clusters).map(|k| n * k / n_clusters).collect();
        let mut thresholds = vec![0u64; n_clusters - 1];
        for _ in 0..12 {
            let mean = |k: usize| {
                let (from, to) = (bounds[k], bounds[k + 1]);
                let sum = self.totals[to] - self.totals[from];
                sum.checked_div((to - from) as u64).unwrap_or_else(|| self.sorted[from.min(n - 1)])
            };
            let mut left = mean(0);
            for (k, threshold) in thresholds.iter_mut().enumerate() {
                let right = mean(k + 1);
                *threshold = (left + right).div_ceil(2);
                left = right;
            }
            let mut is_settled = true;
            for (bound, threshold) in bounds[1..].iter_mut().zip(&thresholds) {
                let next = self.sorted.partition_point(|sum| sum < threshold);
                is_settled &= next == *bound;
                *bound = next;
            }
            if is_settled {
                break;
            }
        }
        ids.fill(0);
        // As wide as the sums are: more at a time.
        for threshold in thresholds.into_iter().filter_map(|threshold| T::try_from(threshold).ok()) {
            ids.iter_mut().zip(sums).for_each(|(id, &sum)| *id += u8::from(sum >= threshold));
        }
    }
}
