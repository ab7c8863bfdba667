//! The page of the controller in a real browser.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use tests::Bed;

/// Width and height of the window.
const WINDOW: (u32, u32) = (1760, 480);

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
    let shown = browse("--dump-dom")?;
    for expected in ["ServiceImport/default/store/80", "HTTPRoute default/store", "invalid_backend", "1 not well"] {
        ensure!(shown.contains(expected), "the page does not show {expected:?}: {shown}");
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
