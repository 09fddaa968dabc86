//! Windows for a program that reads them, a line each, until there is none, nobody reads them any more, or somebody asks
//! to stop. A line that was begun is ended first.

use std::time::{Duration, Instant};

use super::feed::{Feed, Snapshots};
use super::{TopError, print};
use crate::args::Output;
use crate::signals::Stop;

/// So long the reader of a pipe has, who was slow when we were asked to stop, to take the rest of the line.
const LAST_LINE: Duration = Duration::from_secs(1);

/// Prints each window when it ends.
pub fn run(feed: Feed<impl Snapshots>) -> Result<(), TopError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let printed = runtime.block_on(print_all(feed));
    // Who does not read is not waited for.
    runtime.shutdown_background();
    printed
}

async fn print_all(mut feed: Feed<impl Snapshots>) -> Result<(), TopError> {
    let mut stop = Stop::new().map_err(TopError::Signals)?;
    while let Some(due) = feed.due() {
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            _ = stop.asked() => break,
        }
        let Some(view) = feed.take(Instant::now())? else { break };
        let mut printing = tokio::task::spawn_blocking(move || print(&view, Output::Json));
        let printed = tokio::select! {
            printed = &mut printing => Some(printed),
            _ = stop.asked() => {
                let _ = tokio::time::timeout(LAST_LINE, printing).await;
                None
            }
        };
        match printed {
            Some(Ok(printed)) => {
                if !printed? {
                    break;
                }
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            None => break,
        }
    }
    Ok(())
}
