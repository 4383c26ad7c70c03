// Below the path of interop/go, whose packages it uses.
module interop/library

go 1.25.5

require (
	github.com/bufbuild/protocompile v0.14.1
	github.com/relab/gorums v0.11.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20251222181119-0a764e51fe1b
	google.golang.org/grpc v1.79.3
	google.golang.org/protobuf v1.36.11
	interop v0.0.0
)

require (
	go.uber.org/goleak v1.3.0 // indirect
	golang.org/x/net v0.48.0 // indirect
	golang.org/x/sync v0.19.0 // indirect
	golang.org/x/sys v0.39.0 // indirect
	golang.org/x/text v0.32.0 // indirect
)

replace interop => ../go
