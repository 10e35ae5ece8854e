//! Many of a kind, some of them at one time.

use tokio::task::JoinSet;

use super::Failure;

/// Does all of the work, at most so much at one time; the first failure ends the rest. Returns what came of it, in the
/// order in which it was done.
pub(super) async fn at_most<T, F>(most: usize, work: impl IntoIterator<Item = F>) -> Result<Vec<T>, Failure>
where
    F: Future<Output = Result<T, Failure>> + Send + 'static,
    T: Send + 'static,
{
    let mut work = work.into_iter();
    // Dropped with this future: nothing of it goes on then.
    let mut running = JoinSet::new();
    for next in work.by_ref().take(most) {
        running.spawn(next);
    }
    let mut done = Vec::new();
    while let Some(ended) = running.join_next().await {
        let ended =
            ended.map_err(|error| Failure::local("BENCH", format!("a task of the bench: {error}")))?;
        done.push(ended?);
        if let Some(next) = work.next() {
            running.spawn(next);
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn all_is_done_and_never_more_than_so_much_at_one_time() {
        let running = Arc::new(AtomicUsize::new(0));
        let work = (0..20).map(|number| {
            let running = Arc::clone(&running);
            async move {
                assert!(running.fetch_add(1, Ordering::SeqCst) < 3);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(number)
            }
        });
        let mut done = at_most(3, work).await.unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_first_failure_is_the_answer() {
        let work = (0..5).map(|number| async move {
            if number == 1 { Err(Failure::local("X", "no".to_owned())) } else { Ok(()) }
        });
        assert_eq!(at_most(1, work).await.unwrap_err().to_string(), "no");
    }
}
