//! Clusters of segments by one number each: k-means in one dimension (S. Lloyd, "Least squares quantization in PCM",
//! 1982). It takes a sort of the numbers and no histograms.

/// Scratch memory of the clustering.
#[derive(Debug, Default)]
pub struct Clusters {
    sorted: Vec<u64>,
}

impl Clusters {
    /// Sets the cluster of each of `sums`, 0 to `n_clusters` − 1 by rising sum; some may stay empty. The means are those
    /// of one in `one_in` sums.
    pub fn assign<T: Copy + Into<u64>>(
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
        let n_clusters = n_clusters.max(1);
        let mut bounds: Vec<usize> = (0..=n_clusters).map(|k| n * k / n_clusters).collect();
        let mut thresholds = vec![0u64; n_clusters - 1];
        for _ in 0..12 {
            let mean = |k: usize| {
                let members = &self.sorted[bounds[k]..bounds[k + 1]];
                let sum: u64 = members.iter().sum();
                sum.checked_div(members.len() as u64).unwrap_or_else(|| self.sorted[bounds[k].min(n - 1)])
            };
            for (k, threshold) in thresholds.iter_mut().enumerate() {
                *threshold = (mean(k) + mean(k + 1)).div_ceil(2);
            }
            let next: Vec<usize> = thresholds
                .iter()
                .map(|threshold| self.sorted.partition_point(|sum| sum < threshold))
                .collect();
            if bounds[1..n_clusters] == next {
                break;
            }
            bounds[1..n_clusters].copy_from_slice(&next);
        }
        ids.fill(0);
        for threshold in thresholds {
            ids.iter_mut().zip(sums).for_each(|(id, &sum)| *id += u8::from(sum.into() >= threshold));
        }
    }
}
