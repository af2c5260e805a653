// Java 17 or later, no package: java examples/JavaClient.java 127.0.0.1:8080 shoe.png
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.time.Duration;

public class JavaClient {
    public static void main(String[] arguments) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://" + arguments[0] + "/v1/predict?top_k=3"))
            .timeout(Duration.ofSeconds(5))
            .POST(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[1])))
            .build();
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            System.err.println("no answer: " + response.statusCode() + ": " + response.body());
            System.exit(1);
        }
        System.out.println(response.body()); // JSON; any library reads it
    }
}
