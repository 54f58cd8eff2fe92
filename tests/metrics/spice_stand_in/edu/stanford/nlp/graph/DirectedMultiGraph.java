package edu.stanford.nlp.graph;

import edu.stanford.nlp.util.MapFactory;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

public class DirectedMultiGraph<V, E> {
    private final Set<V> vertices = new LinkedHashSet<>();
    private final List<E> edges = new ArrayList<>();

    public DirectedMultiGraph(MapFactory<V, Map<V, List<E>>> outer, MapFactory<V, List<E>> inner) {
    }

    public boolean addVertex(V vertex) {
        return vertices.add(vertex);
    }

    public void add(V source, V target, E edge) {
        vertices.add(source);
        vertices.add(target);
        edges.add(edge);
    }

    public Set<V> getAllVertices() {
        return vertices;
    }

    public List<E> getAllEdges() {
        return edges;
    }
}
