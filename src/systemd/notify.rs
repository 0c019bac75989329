//! What slotd tells PID 1 about itself (sd_notify(3)).

use sd_notify::NotifyState;

/// Says twice in each watchdog period that this process is alive, for ever; returns at once where there is no watchdog
/// (sd_watchdog_enabled(3)). It runs as a task of the same runtime as everything else: when that hangs, so does this.
pub async fn keep_watchdog_quiet() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        tokio::time::sleep(period / 2).await;
        if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
            tracing::warn!("the service manager was not told that slotd is alive: {error}");
        }
    }
}
