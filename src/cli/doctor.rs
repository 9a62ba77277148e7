//! `vpclab doctor`: what this host lacks, and the command that mends it.

use super::common::{Done, Format, FormatArg, print_json};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub format: FormatArg,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use crate::host::doctor::{Level, report};

    let findings = report(std::path::Path::new("/proc/self/exe"));
    let missing = findings.iter().any(|f| f.level == Level::Missing);
    if args.format.format == Format::Json {
        print_json(&findings)?;
    } else {
        let width = findings.iter().map(|f| f.what.chars().count()).max().unwrap_or(0);
        for f in &findings {
            let mark = match f.level {
                Level::Ok => "ok      ",
                Level::Note => "note    ",
                Level::Missing => "MISSING ",
            };
            println!("{mark}{:width$}  {}", f.what, f.found);
            if let Some(mend) = &f.mend {
                println!("        {:width$}  mend: {mend}", "");
            }
        }
    }
    Ok(if missing { 3 } else { 0 })
}
