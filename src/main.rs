use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Some(code) = vpclab::host::inner_process(&std::env::args_os().skip(1).collect::<Vec<_>>()) {
        return code;
    }
    ExitCode::SUCCESS
}
