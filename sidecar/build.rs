//! How images' programs are linked is part of them: cargo would not know that a new list of functions makes a new sidecar.

fn main() {
    for file in ["cc", "first", "functions.py"] {
        println!("cargo::rerun-if-changed=../images/{file}");
    }
}
