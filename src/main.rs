use std::process::ExitCode;

fn main() -> ExitCode {
    // keeper and exec helper need a process with one thread: before anything else
    #[cfg(target_os = "linux")]
    if let Some(code) = vpclab::host::inner_process(&std::env::args_os().skip(1).collect::<Vec<_>>()) {
        return code;
    }
    vpclab::cli::main()
}
