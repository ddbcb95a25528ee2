package runtimes

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	namespaces "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxes "github.com/containerd/containerd/api/services/sandbox/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	// kubernetes is containerd's namespace of all that comes through CRI.
	kubernetes = "k8s.io"
	// maxNamespaces bounds how many namespaces of containerd are looked through.
	maxNamespaces = 32
)

// Where CRI keeps a pod's configuration: an extension of the sandbox's record in 2.x, of the
// container's in 1.x.
const (
	sandboxExtension   = "metadata"
	containerExtension = "io.cri-containerd.sandbox.metadata"
)

// containerd is its own API on a socket.
type containerd struct {
	socket string
}

// ask looks the container up by its record. The connection is made anew for each question: that is
// 3 ms of an ADD's 100, and leaves no state that a restart of containerd could spoil.
func (c containerd) ask(ctx context.Context, id string) (Found, bool, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	if err != nil {
		if notThere(err) {
			err = nil
		}
		return Found{}, false, err
	}
	_ = conn.Close() // gRPC would hide what kept it from dialling
	cc, err := grpc.NewClient("unix://"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return Found{}, false, err
	}
	defer cc.Close()
	if f, known, err := inNamespace(ctx, cc, kubernetes, id); known || err != nil {
		return f, known, err
	}
	// Not of a pod: nerdctl and ctr have namespaces of their own.
	list, err := namespaces.NewNamespacesClient(cc).List(ctx, &namespaces.ListNamespacesRequest{})
	if err != nil {
		return Found{}, false, fmt.Errorf("namespaces: %w", err)
	}
	all := list.GetNamespaces()
	for _, ns := range all[:min(len(all), maxNamespaces)] {
		if ns.GetName() == kubernetes {
			continue
		}
		ids := []string{id}
		if bare, ok := strings.CutPrefix(id, ns.GetName()+"-"); ok && bare != "" {
			ids = append(ids, bare) // nerdctl and ctr tell CNI "namespace-id"
		}
		for _, id := range ids {
			if f, known, err := inNamespace(ctx, cc, ns.GetName(), id); known || err != nil {
				return f, known, err
			}
		}
	}
	return Found{}, false, nil
}

// inNamespace asks for the sandbox's record (2.x), then for the container's (1.x, and everything that
// is no pod).
func inNamespace(ctx context.Context, cc grpc.ClientConnInterface, namespace, id string) (Found, bool, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
	sandbox, err := sandboxes.NewStoreClient(cc).Get(ctx, &sandboxes.StoreGetRequest{SandboxID: id})
	if err == nil {
		s := sandbox.GetSandbox()
		f, err := describe(s.GetLabels(), s.GetExtensions()[sandboxExtension])
		return f, err == nil, err
	}
	if !unknown(err) {
		return Found{}, false, fmt.Errorf("sandbox: %w", err)
	}
	container, err := containers.NewContainersClient(cc).Get(ctx, &containers.GetContainerRequest{ID: id})
	if err == nil {
		c := container.GetContainer()
		f, err := describe(c.GetLabels(), c.GetExtensions()[containerExtension])
		return f, err == nil, err
	}
	if !unknown(err) {
		return Found{}, false, fmt.Errorf("container: %w", err)
	}
	return Found{}, false, nil
}

// unknown says that containerd has no such record, or no such service at all: 1.6 has no store of
// sandboxes. Ids that it would never give out are as unknown.
func unknown(err error) bool {
	return slices.Contains([]codes.Code{codes.NotFound, codes.Unimplemented, codes.InvalidArgument}, status.Code(err))
}

// podConfig is what we read of CRI's record of a pod. Source: internal/cri/store/sandbox/metadata.go
// of containerd 2, pkg/cri/store/sandbox/metadata.go of 1.6.
type podConfig struct {
	Metadata struct {
		Config struct {
			Metadata struct{ Name, Namespace string }
			Labels   map[string]string
		}
	}
}

// describe makes a record into Found. Where it holds a pod's configuration, that alone counts: the
// record's own labels have those of the pause image among them.
func describe(labels map[string]string, extension *anypb.Any) (Found, error) {
	if extension == nil {
		return Found{Labels: ofContainer(labels), Namespace: labels[podNamespace], Name: cmp.Or(labels[podName], labels[nerdctlName])}, nil
	}
	var pod podConfig
	if err := json.Unmarshal(extension.GetValue(), &pod); err != nil {
		return Found{}, fmt.Errorf("the pod's record of type %q: %w", extension.GetTypeUrl(), err)
	}
	config := pod.Metadata.Config
	return Found{
		Labels:    ofContainer(config.Labels),
		Namespace: cmp.Or(config.Metadata.Namespace, config.Labels[podNamespace]),
		Name:      cmp.Or(config.Metadata.Name, config.Labels[podName]),
	}, nil
}
