//! Jobs done on all threads, their results taken in the order of the jobs.
//!
//! No thread waits while there is a job. Whoever finishes the job that is next in order commits its result, and
//! all that follow it and are done; meanwhile the others go on with later jobs. So one thread at a time writes to
//! a file (two would spend their time waiting for its lock), and no thread is set aside for it.
//!
//! Neither jobs nor commits may use the pool: a thread that waits for other tasks of the pool might take up a
//! second turn here beneath the first, and each would wait for the other.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rayon::ThreadPool;

use super::context::Checkout;
use crate::error::Result;

/// Most jobs under way; a hostile archive may have blocks of one byte.
pub(crate) const MAX_JOBS: usize = 4096;

/// Gives the jobs in order, until there are no more; each with the bytes that it holds until its result is committed.
pub(crate) type NextJob<'s, J> = &'s mut (dyn FnMut() -> Result<Option<(J, usize)>> + Send);
/// Takes the results in order.
pub(crate) type Commit<'s, R> = &'s mut (dyn FnMut(R) -> Result<()> + Send);

/// Does all jobs that `next_job` gives and commits their results in order.
///
/// `work` does them on each thread of `pool`, or on the calling one alone where there is none, with an object out of
/// `scratch`, or a new one, for each thread. Jobs of `window_bytes` are under way at a time, and the last of them may
/// exceed that.
///
/// # Errors
/// The first in the order of the jobs; what comes after it is not committed.
pub(crate) fn run_in_order<J: Send, R: Send, S: Send>(
    pool: Option<&ThreadPool>,
    window_bytes: usize,
    next_job: NextJob<'_, J>,
    (scratch, make_scratch): (&Checkout<S>, impl Fn() -> S + Sync),
    work: impl Fn(J, &mut S) -> Result<R> + Sync,
    commit: Commit<'_, R>,
) -> Result<()> {
    let shared = Shared {
        jobs: Mutex::new(Jobs { next_job, ended: false }),
        results: Mutex::new(Results::default()),
        space: Condvar::new(),
        commit: Mutex::new(commit),
        window_bytes,
    };
    let turn = || {
        let mut held = scratch.take(&make_scratch);
        shared.work(|job| work(job, &mut held));
        scratch.put(held);
    };
    match pool {
        Some(pool) => pool.scope(|scope| {
            for _ in 1..pool.current_num_threads() {
                scope.spawn(|_| turn());
            }
            turn();
        }),
        None => turn(),
    }
    let Shared { results, .. } = shared;
    results.into_inner().unwrap_or_else(PoisonError::into_inner).error.map_or(Ok(()), Err)
}

struct Jobs<'s, J> {
    next_job: NextJob<'s, J>,
    ended: bool,
}

struct Slot<R> {
    bytes: usize,
    /// None while the job is being done.
    result: Option<Result<R>>,
}

struct Results<R> {
    /// Of the jobs that were taken and are not committed, in order.
    slots: VecDeque<Slot<R>>,
    /// Number of the job that the first slot is of.
    first: usize,
    /// Bytes of the jobs under way, the one being committed included.
    bytes: usize,
    is_committing: bool,
    /// Whether somebody waits for [`Shared::space`].
    is_waiting: bool,
    stopped: bool,
    error: Option<crate::error::Error>,
}

impl<R> Default for Results<R> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            bytes: 0,
            is_committing: false,
            is_waiting: false,
            stopped: false,
            error: None,
        }
    }
}

impl<R> Results<R> {
    /// Adds a job and gives its number.
    fn push(&mut self, bytes: usize) -> usize {
        self.bytes += bytes;
        self.slots.push_back(Slot { bytes, result: None });
        self.first + self.slots.len() - 1
    }

    /// The first slot's result and bytes, if it is there.
    fn pop(&mut self) -> Option<(Result<R>, usize)> {
        let result = self.slots.front_mut()?.result.take()?;
        self.first += 1;
        Some((result, self.slots.pop_front().map_or(0, |slot| slot.bytes)))
    }
}

struct Shared<'s, J, R> {
    jobs: Mutex<Jobs<'s, J>>,
    results: Mutex<Results<R>>,
    /// There is space in the window, or all has stopped.
    space: Condvar,
    /// Locked by whoever has set [`Results::is_committing`], so that nobody ever waits for it.
    commit: Mutex<Commit<'s, R>>,
    window_bytes: usize,
}

impl<J, R> Shared<'_, J, R> {
    fn work(&self, mut work: impl FnMut(J) -> Result<R>) {
        let _stop = StopOnPanic(self);
        while let Some((number, job)) = self.take() {
            let result = job.and_then(&mut work);
            self.give(number, result);
        }
    }

    /// The next job or the error in its place, and its number.
    fn take(&self) -> Option<(usize, Result<J>)> {
        let mut jobs = lock(&self.jobs);
        if jobs.ended {
            return None;
        }
        // The jobs stay locked, for nobody else adds to the window. It empties without this thread: whoever does
        // the first job of it commits that.
        let mut results = lock(&self.results);
        while !results.stopped && (results.bytes >= self.window_bytes || results.slots.len() >= MAX_JOBS) {
            results.is_waiting = true;
            results = self.space.wait(results).unwrap_or_else(PoisonError::into_inner);
            results.is_waiting = false;
        }
        if results.stopped {
            return None;
        }
        drop(results);
        let (bytes, job) = match (jobs.next_job)() {
            Ok(Some((job, bytes))) => (bytes, Ok(job)),
            Ok(None) => {
                jobs.ended = true;
                return None;
            }
            Err(error) => {
                jobs.ended = true;
                (0, Err(error))
            }
        };
        Some((lock(&self.results).push(bytes), job))
    }

    /// Puts a result in its place, and commits what is ready unless another thread does.
    fn give(&self, number: usize, result: Result<R>) {
        let mut results = lock(&self.results);
        let place = number - results.first;
        if let Some(slot) = results.slots.get_mut(place) {
            slot.result = Some(result);
        }
        if results.is_committing {
            // That thread looks again before it stops.
            return;
        }
        results.is_committing = true;
        let mut commit = lock(&self.commit);
        while !results.stopped
            && let Some((result, bytes)) = results.pop()
        {
            drop(results);
            let committed = result.and_then(&mut **commit);
            results = lock(&self.results);
            results.bytes -= bytes;
            if let Err(error) = committed {
                results.stopped = true;
                results.error = Some(error);
            }
            if results.is_waiting {
                self.space.notify_one();
            }
        }
        drop(commit);
        results.is_committing = false;
    }
}

/// Lets the other threads go when one panics, so that the panic is seen and nobody waits for it.
struct StopOnPanic<'a, 's, J, R>(&'a Shared<'s, J, R>);

impl<J, R> Drop for StopOnPanic<'_, '_, J, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.results).stopped = true;
            self.0.space.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn pool(n_threads: usize) -> ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap()
    }

    fn numbers(end: usize, bytes: usize) -> impl FnMut() -> Result<Option<(usize, usize)>> {
        let mut numbers = 0..end;
        move || Ok(numbers.next().map(|job| (job, bytes)))
    }

    /// Takes longer for some jobs than for others.
    fn dawdle(job: usize) {
        if job.is_multiple_of(7) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    #[test]
    fn results_come_in_order_and_the_window_holds() {
        for n_threads in [0, 1, 2, 5] {
            let pool = (n_threads > 0).then(|| pool(n_threads));
            let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut next_job = numbers(500, 10);
            let mut counted = || {
                let job = next_job();
                most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                job
            };
            let work = |job, _: &mut ()| {
                dawdle(job);
                Ok(job * 2)
            };
            let mut committed = Vec::new();
            let mut commit = |result| {
                committed.push(result);
                under_way.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            };
            run_in_order(pool.as_ref(), 75, &mut counted, (&Checkout::default(), || ()), work, &mut commit)
                .unwrap();
            assert_eq!(committed, (0..500).map(|job| job * 2).collect::<Vec<_>>());
            // The eighth job exceeds the window; the last call gives none.
            assert!(most.into_inner() <= 9);
        }
    }

    #[test]
    fn the_first_error_in_order_is_reported_and_nothing_after_it_is_committed() {
        let error = |place: usize| Error::new(ErrorKind::Corrupt, place.to_string());
        for (bad_job, bad_commit, bad_source, first) in
            [(30, 40, 50, 30), (40, 30, 50, 30), (60, 60, 20, 20), (25, 25, 25, 25)]
        {
            for n_threads in [1, 3] {
                let pool = pool(n_threads);
                let mut source = numbers(100, 1);
                let mut next_job = || match source()? {
                    Some((job, _)) if job == bad_source => Err(error(job)),
                    next => Ok(next),
                };
                let work = |job, _: &mut ()| {
                    dawdle(job);
                    // Later ones fail too, and sooner.
                    if job >= bad_job { Err(error(job)) } else { Ok(job) }
                };
                let mut committed = 0;
                let mut commit = |job| {
                    if job == bad_commit {
                        return Err(error(job));
                    }
                    committed = job + 1;
                    Ok(())
                };
                let found = run_in_order(
                    Some(&pool),
                    20,
                    &mut next_job,
                    (&Checkout::default(), || ()),
                    work,
                    &mut commit,
                );
                assert_eq!(found.unwrap_err().to_string(), first.to_string());
                assert_eq!(committed, first);
            }
        }
    }

    #[test]
    fn a_panic_ends_the_run() {
        let pool = pool(3);
        let work = |job, _: &mut ()| if job == 50 { panic!("on purpose") } else { Ok(job) };
        let run = || {
            run_in_order(
                Some(&pool),
                4,
                &mut numbers(1000, 1),
                (&Checkout::default(), || ()),
                work,
                &mut |_| Ok(()),
            )
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
}
