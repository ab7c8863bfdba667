//! A shell inside a pod of the lab, and what Ctrl-C means.

use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use anyhow::Context;
use lab::lab::Lab;
use lab::roles::PodName;
use nix::sys::signal::{SigSet, Signal};

/// Gives a word for every SIGINT, SIGTERM and SIGHUP from now on, instead of ending the process in the middle of its work.
pub(crate) fn interruptions() -> anyhow::Result<Receiver<()>> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().context("signals")?;
    let (sender, receiver) = channel();
    // Ends with the process: nothing else is waited for there.
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.wait().is_ok() {
            if sender.send(()).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Opens a shell in a pod; meanwhile `follow` keeps the lab equal to its folder.
pub(crate) fn open(lab: &mut Lab, pod: &PodName, follow: impl Fn(&mut Lab, &Receiver<()>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("own path")?;
    let folder = own.parent().context("own path")?.display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    eprintln!(
        "\nA shell in {pod}. Try: isthmus request GET http://store.default.svc.clusterset.local/cart\nEdits in {} take effect at once; exit \
         ends everything.",
        lab.source().display()
    );
    let mut child = lab.namespace(pod)?.run(|| {
        let mut command = Command::new(&shell);
        command.env("PATH", &path).env("ISTHMUS_POD", pod.to_string());
        // Ctrl-C is for what runs in the shell.
        SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]).thread_unblock()?;
        command.spawn().with_context(|| command.get_program().to_string_lossy().into_owned())
    })?;
    let (ended, is_over) = channel();
    let waiter = std::thread::spawn(move || {
        let status = child.wait();
        // The other side may have ended for another reason.
        let _ = ended.send(());
        status
    });
    follow(lab, &is_over)?;
    waiter.join().map_err(|_| anyhow::anyhow!("the shell was lost"))??;
    Ok(())
}
