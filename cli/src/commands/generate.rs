//! `generate`.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use lockstep_trainer::{DeviceName, Finish, Generator, Sampling};

use crate::output::Format;

/// Continue a text with an exported model.
///
/// The text is printed as it is written. The same seed, model and prompt give the same text.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model's folder, as `demo` and `checkpoint export` write it.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The text to continue; empty starts a new one.
    #[arg(long, default_value = "")]
    prompt: String,
    /// Tokens to write at most.
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_tokens: usize,
    /// 0 takes the most likely token always; higher is more varied.
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Choose among so many most likely tokens; 0 means all.
    #[arg(long, value_name = "K", default_value_t = 50)]
    top_k: usize,
    /// Of the random choices.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(serde::Serialize)]
struct Reply<'a> {
    prompt: &'a str,
    text: String,
    tokens: usize,
    finish: &'static str,
}

pub(crate) fn run(args: &Args, format: Format) -> anyhow::Result<()> {
    let device = DeviceName::Cpu.open()?;
    let generator = Generator::open(&args.model, &device)?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        seed: args.seed,
        max_tokens: args.max_tokens,
    };
    let stream = format == Format::Text;
    let mut out = std::io::stdout();
    let mut show = |text: &str| match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    if stream && show(&args.prompt).is_break() {
        return Ok(());
    }
    let generated = generator.generate(&args.prompt, &sampling, |piece| {
        if stream {
            show(piece)
        } else {
            ControlFlow::Continue(())
        }
    })?;
    if stream {
        // A reader that went away is no error.
        let _ = show("\n");
        return Ok(());
    }
    let finish = match generated.finish {
        Finish::EndOfText => "end_of_text",
        Finish::Length => "length",
        Finish::Stopped => "stopped",
    };
    let reply = Reply {
        prompt: &args.prompt,
        text: generated.text,
        tokens: generated.tokens.len(),
        finish,
    };
    format.print(&reply, |reply| reply.text.clone())
}
