//! Generates the shard's service glue from the contract: the `!Send` service trait, the method
//! table and the server that `src/wire` drives. Messages are not generated here a second time, they
//! come from the `inventory-proto` crate.

use std::error::Error;
use std::fmt::Write as _;

use prost_build::{Method, Service, ServiceGenerator};

/// The contracts served by the shards; cold services are tonic's and need no glue.
const HOT_PROTOS: [&str; 2] = [
    "inventory/v1/inventory.proto",
    "reservation/v1/inventory.proto",
];

/// Their packages and those they import, and where the `inventory-proto` crate has each.
const PACKAGES: [(&str, &str); 3] = [
    (".inventory.v1", "::inventory_proto::inventory::v1"),
    (".reservation.v1", "::inventory_proto::reservation::v1"),
    (".common.v1", "::inventory_proto::common::v1"),
];

/// Methods whose handlers may give a response that is encoded already, because it is large and asked
/// for again and again. Boxed otherwise: every call carries room for the largest response.
const KEPT_REPLIES: [&str; 1] = ["GetInventoryStatus"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let mut config = prost_build::Config::new();
    for (package, path) in PACKAGES {
        let folder = package.trim_start_matches('.').replace('.', "/");
        println!("cargo:rerun-if-changed=../../proto/{folder}");
        config.extern_path(package, path);
    }
    let descriptors = protox::compile(HOT_PROTOS, ["../../proto"])?;
    config
        .service_generator(Box::new(HotServices))
        .compile_fds(descriptors)?;
    Ok(())
}

/// Writes one trait, one method enum, one reply enum and one server per service.
struct HotServices;

impl ServiceGenerator for HotServices {
    fn generate(&mut self, service: Service, out: &mut String) {
        for method in &service.methods {
            assert!(
                !method.client_streaming && !method.server_streaming,
                "{}.{}: hot services are unary; serve a streaming method from the side thread",
                service.name,
                method.name,
            );
        }
        let written = service_trait(&service, out)
            .and_then(|()| method_enum(&service, out))
            .and_then(|()| reply_enum(&service, out))
            .and_then(|()| server(&service, out));
        written.expect("writing to a String does not fail");
    }
}

/// `inventory.v1.Inventory`, as it stands in a path.
fn full_service(service: &Service) -> String {
    format!("{}.{}", service.package, service.proto_name)
}

/// `/inventory.v1.Inventory/CheckAvailability`.
fn path(service: &Service, method: &Method) -> String {
    format!("/{}/{}", full_service(service), method.proto_name)
}

/// The type of a method's response.
fn reply(method: &Method) -> String {
    match KEPT_REPLIES.contains(&method.proto_name.as_str()) {
        true => format!("crate::Kept<{}>", method.output_type),
        false => method.output_type.clone(),
    }
}

fn service_trait(service: &Service, out: &mut String) -> std::fmt::Result {
    service.comments.append_with_indent(0, out);
    writeln!(out, "///")?;
    writeln!(
        out,
        "/// Handlers run on one shard and need not be `Send`. A handler's future is dropped when"
    )?;
    writeln!(
        out,
        "/// its caller goes away or its deadline passes: what must not be torn is not owned by it."
    )?;
    writeln!(out, "pub trait {} {{", service.name)?;
    for method in &service.methods {
        method.comments.append_with_indent(1, out);
        writeln!(out, "    fn {}(", method.name)?;
        writeln!(out, "        &self,")?;
        writeln!(out, "        call: &crate::Call,")?;
        writeln!(out, "        request: {},", method.input_type)?;
        writeln!(
            out,
            "    ) -> impl ::std::future::Future<Output = Result<{}, crate::Status>>;",
            reply(method)
        )?;
    }
    writeln!(out, "}}\n")
}

fn method_enum(service: &Service, out: &mut String) -> std::fmt::Result {
    let name = &service.name;
    writeln!(out, "/// The methods of `{}`.", full_service(service))?;
    writeln!(
        out,
        "#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\npub enum {name}Method {{"
    )?;
    for method in &service.methods {
        writeln!(out, "    {},", method.proto_name)?;
    }
    writeln!(out, "}}\n\nimpl {name}Method {{")?;
    writeln!(out, "    /// Every method, in the contract's order.")?;
    let all: Vec<String> = service
        .methods
        .iter()
        .map(|method| format!("Self::{}", method.proto_name))
        .collect();
    writeln!(
        out,
        "    pub const ALL: &'static [Self] = &[{}];\n",
        all.join(", ")
    )?;
    writeln!(out, "    /// The method that a request's `:path` names.")?;
    writeln!(
        out,
        "    pub fn find(path: &str) -> Option<Self> {{\n        match path {{"
    )?;
    for method in &service.methods {
        writeln!(
            out,
            "            \"{}\" => Some(Self::{}),",
            path(service, method),
            method.proto_name
        )?;
    }
    writeln!(out, "            _ => None,\n        }}\n    }}\n")?;
    writeln!(out, "    /// The path: `/package.Service/Method`.")?;
    writeln!(
        out,
        "    pub const fn full_name(self) -> &'static str {{\n        match self {{"
    )?;
    for method in &service.methods {
        writeln!(
            out,
            "            Self::{} => \"{}\",",
            method.proto_name,
            path(service, method)
        )?;
    }
    writeln!(out, "        }}\n    }}\n")?;
    writeln!(out, "    /// The method alone.")?;
    writeln!(
        out,
        "    pub const fn name(self) -> &'static str {{\n        match self {{"
    )?;
    for method in &service.methods {
        writeln!(out, "            Self::{0} => \"{0}\",", method.proto_name)?;
    }
    writeln!(out, "        }}\n    }}\n}}\n")
}

fn reply_enum(service: &Service, out: &mut String) -> std::fmt::Result {
    let name = &service.name;
    writeln!(
        out,
        "/// A response of `{}`, not yet encoded.",
        full_service(service)
    )?;
    writeln!(out, "pub enum {name}Reply {{")?;
    for method in &service.methods {
        writeln!(out, "    {}({}),", method.proto_name, reply(method))?;
    }
    writeln!(out, "}}\n\nimpl crate::Reply for {name}Reply {{")?;
    writeln!(
        out,
        "    fn encode(&self, into: &mut ::bytes::BytesMut) -> Result<(), ::prost::EncodeError> {{"
    )?;
    writeln!(out, "        match self {{")?;
    for method in &service.methods {
        writeln!(
            out,
            "            Self::{}(message) => crate::Reply::encode(message, into),",
            method.proto_name
        )?;
    }
    writeln!(out, "        }}\n    }}\n}}\n")
}

fn server(service: &Service, out: &mut String) -> std::fmt::Result {
    let name = &service.name;
    writeln!(
        out,
        "/// Serves an implementation of [`{name}`] on a shard."
    )?;
    writeln!(out, "pub struct {name}Server<S> {{\n    handlers: S,\n}}\n")?;
    writeln!(out, "impl<S> {name}Server<S> {{")?;
    writeln!(
        out,
        "    pub const fn new(handlers: S) -> Self {{\n        Self {{ handlers }}\n    }}\n}}\n"
    )?;
    writeln!(
        out,
        "impl<S: {name} + 'static> crate::HotService for {name}Server<S> {{"
    )?;
    writeln!(
        out,
        "    type Method = {name}Method;\n    type Reply = {name}Reply;\n"
    )?;
    writeln!(
        out,
        "    fn find(path: &str) -> Option<{name}Method> {{\n        {name}Method::find(path)\n    }}\n"
    )?;
    writeln!(
        out,
        "    fn has_service(service: &str) -> bool {{\n        service == \"{}\"\n    }}\n",
        full_service(service)
    )?;
    writeln!(
        out,
        "    fn method_name(method: {name}Method) -> &'static str {{\n        method.full_name()\n    }}\n"
    )?;
    writeln!(out, "    async fn call(")?;
    writeln!(
        out,
        "        &self,\n        method: {name}Method,\n        call: &crate::Call,"
    )?;
    writeln!(out, "        request: ::bytes::Bytes,")?;
    writeln!(
        out,
        "    ) -> Result<{name}Reply, crate::Status> {{\n        match method {{"
    )?;
    for method in &service.methods {
        writeln!(out, "            {name}Method::{} => {{", method.proto_name)?;
        writeln!(
            out,
            "                let request = crate::decode(request)?;"
        )?;
        writeln!(
            out,
            "                let reply = self.handlers.{}(call, request).await?;",
            method.name
        )?;
        writeln!(
            out,
            "                Ok({name}Reply::{}(reply))\n            }}",
            method.proto_name
        )?;
    }
    writeln!(out, "        }}\n    }}\n}}\n")
}
