fn main(){println!("cargo:rustc-env=WSGI_BUILD_ID=x");}
