//! The page of the controller in a real browser.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::Bed;

/// Width and height of the window.
const WINDOW: (u32, u32) = (1800, 260);

/// What is requested is seen in the page after this time at most.
const LOAD_SEEN_MAX: Duration = Duration::from_secs(30);

/// Looks at it from the client's pod: the browser shows what is meant, and a screenshot of it.
pub(crate) fn look(bed: &Bed, folder: &Path) -> anyhow::Result<()> {
    let url = format!("http://{}/graph", bed.controller_admin());
    let profile = tempfile::tempdir()?;
    let client = bed.client()?;
    let browse = |argument: &str| {
        let output = bed.namespace(&client)?.run(|| {
            let mut command = Command::new("chromium");
            command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]);
            command.arg(format!("--window-size={},{}", WINDOW.0, WINDOW.1)).arg(format!("--user-data-dir={}", profile.path().display()));
            command.args([argument, &url]).output().context("chromium: make observability installs it")
        })?;
        ensure!(output.status.success(), "chromium: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let end = Instant::now() + LOAD_SEEN_MAX;
    loop {
        for path in ["/cart", "/gone"] {
            bed.get("store.default.svc.clusterset.local:80", path)?;
        }
        let shown = browse("--dump-dom")?;
        let all =
            ["ServiceImport/default/store/80", "HTTPRoute default/store", "invalid_backend, rule 1, ", "1 not well", "/s, ", " % fail"];
        let missing: Vec<&str> = all.into_iter().filter(|expected| !shown.contains(expected)).collect();
        if missing.is_empty() {
            break;
        }
        ensure!(Instant::now() < end, "the page does not show {missing:?}: {shown}");
    }
    let path = folder.canonicalize()?.join("graph.png");
    browse(&format!("--screenshot={}", path.display()))?;
    let image = std::fs::read(&path).context("the screenshot")?;
    // The header of a PNG (RFC 2083 section 4.1.1).
    let number = |at: usize| image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    ensure!(image.starts_with(b"\x89PNG") && number(16).zip(number(20)) == Some(WINDOW), "no screenshot of {WINDOW:?}");
    println!("observability: the page is shown; a screenshot is in {}", path.display());
    Ok(())
}
