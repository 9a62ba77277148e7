//! `vpclab capture`: packets as they pass, as a pcapng file, as a stream for Wireshark, or as lines.

use std::path::PathBuf;

use super::common::{Done, LabArg, WatchArgs};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vpclab capture web                                 lines, until Ctrl-C
  vpclab capture web -w - | wireshark -k -i -        live in Wireshark, verdicts as packet comments
  vpclab capture --from web --to endpoint:s3 -w f.pcapng --seconds 10")]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Where: an ENI by its label (web/eth1, s3@b) or its AWS id; may be repeated
    #[arg(long, env = "VPCLAB_ENI", value_name = "ENI")]
    pub eni: Vec<String>,
    /// A pcapng file; `-` is standard output
    #[arg(short = 'w', long = "write", env = "VPCLAB_WRITE", value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Keep so many bytes of each packet in the file
    #[arg(long, env = "VPCLAB_SNAPLEN", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub snaplen: Option<u32>,
    /// Where: all ENIs of an instance or an endpoint. Nowhere in particular: each packet once
    #[arg(value_name = "INSTANCE")]
    pub places: Vec<String>,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use std::io::{self, IsTerminal, Write};
    use std::os::fd::AsFd;

    use super::common::Failure;
    use crate::control::api::{Request, WatchAsk};

    let ask = WatchAsk {
        at: [&args.places[..], &args.eni[..]].concat(),
        snaplen: args.snaplen,
        text: args.write.is_none(),
        ..args.watch.ask()
    };
    let request = Request::Capture(ask);
    let to_stdout = args.write.as_deref().is_some_and(|path| path.as_os_str() == "-");
    let end = match &args.write {
        None => super::common::stream(&args.lab, request, true, |block| {
            print!("{}", String::from_utf8_lossy(block));
            if super::screen::flush() { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        })?,
        Some(_) if to_stdout => {
            if io::stdout().is_terminal() {
                return Err(Failure::input(
                    "a capture file is not for a terminal: `vpclab capture ... -w - | wireshark -k -i -`, `-w FILE`, or \
                     no -w for lines",
                ));
            }
            // Past the standard library's buffer, which looks for ends of lines.
            let mut out = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
            super::common::stream(&args.lab, request, true, |block| out.write_all(block))?
        }
        Some(path) => {
            let (mut file, mut wrong) = (None, None);
            // Made with the first block: a refused capture leaves the file that was there.
            let mut write = |block: &[u8]| {
                let file = match &mut file {
                    Some(file) => file,
                    None => file.insert(std::fs::File::create(path)?),
                };
                file.write_all(block)
            };
            let told = super::common::stream(&args.lab, request, false, |block| {
                write(block).inspect_err(|e| wrong = Some(format!("{}: {e}", path.display())))
            });
            match wrong {
                Some(message) => return Err(Failure::input(message)),
                None => told?,
            }
        }
    };
    if let Some(end) = end {
        eprintln!("{}, {} lost", super::common::count(end.seen as usize, "packet"), end.lost);
    }
    Ok(0)
}
