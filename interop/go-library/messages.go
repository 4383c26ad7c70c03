package main

import (
	"context"
	"fmt"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"interop/internal/pb"
)

// register makes the methods and messages of interop.proto known to Go's runtime, where the library looks for them.
func register(folder string) error {
	imports := &protocompile.SourceResolver{ImportPaths: []string{folder}}
	// The library brings gorums.proto.
	known := protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		file, err := protoregistry.GlobalFiles.FindFileByPath(path)
		if err != nil {
			return protocompile.SearchResult{}, err
		}
		return protocompile.SearchResult{Proto: protodesc.ToFileDescriptorProto(file)}, nil
	})
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(protocompile.CompositeResolver{imports, known}),
	}
	files, err := compiler.Compile(context.Background(), "interop.proto")
	if err != nil {
		return err
	}
	if err := protoregistry.GlobalFiles.RegisterFile(files[0]); err != nil {
		return err
	}
	messages := files[0].Messages()
	for i := range messages.Len() {
		if err := protoregistry.GlobalTypes.RegisterMessage(dynamicpb.NewMessageType(messages.Get(i))); err != nil {
			return err
		}
	}
	return nil
}

// method finds a method by its full name.
func method(name string) (protoreflect.MethodDescriptor, error) {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	method, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is no method", name)
	}
	return method, nil
}

// toLibrary makes of a message one that the library sends: of the type that it has registered.
func toLibrary(message pb.Message, descriptor protoreflect.MessageDescriptor) (proto.Message, error) {
	bytes, err := pb.Marshal(message)
	if err != nil {
		return nil, err
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		return nil, err
	}
	made := kind.New().Interface()
	return made, proto.Unmarshal(bytes, made)
}

// fromLibrary reads a message that the library has received.
func fromLibrary(message proto.Message, into pb.Message) error {
	bytes, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	return pb.Unmarshal(bytes, into)
}
